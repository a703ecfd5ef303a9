"""How is the payment service started? `python -m services.payment_service`."""

from services.payment_service.main import main

main()
