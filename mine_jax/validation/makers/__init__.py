"""What makes images: generators and editors, and the process they work in."""
