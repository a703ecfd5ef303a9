"""What every Holdfast service stands on: events, messaging, storage, HTTP and process frame; it knows no service."""
