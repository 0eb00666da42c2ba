"""Supply: what an image consists of, under which licences, in which versions; its bill of materials and signature."""
