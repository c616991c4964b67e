"""Waist 1: a guest-visible disk, and moving bytes between disks."""
