TEXT = "from the private index"
