"""What runs inside the image. Knows no database and no gateway."""
