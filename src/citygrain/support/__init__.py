"""What every room stands on: configurations, files, devices, the console."""
