"""Containers: the files and devices in which disks lie."""
