"""Configs: load text-format protobuf with located errors, check it, and find the classes it names."""
