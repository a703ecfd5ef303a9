"""How is the inventory service started? `python -m services.inventory_service`."""

from services.inventory_service.main import main

if __name__ == "__main__":
    main()
