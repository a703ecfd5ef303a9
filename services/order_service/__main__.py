"""How is the order service started? `python -m services.order_service`."""

from services.order_service.main import main

main()
