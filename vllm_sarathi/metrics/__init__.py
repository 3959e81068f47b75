"""What is counted of steps and requests, its way to ``/metrics``, and the step log."""
