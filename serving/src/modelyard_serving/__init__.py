"""The ground floor: the runtime in the image, the gateway in front of it, the console, deployment."""
