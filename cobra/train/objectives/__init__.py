"""Objectives: what a stage of training minimizes."""
