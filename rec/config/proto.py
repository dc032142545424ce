"""Types of protobuf as we use them: a message of any type, and descriptors.

The stubs know two implementations of every descriptor and no field of a `Message`, so these are
aliases for the reader.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Proto: TypeAlias = Any  # a message whose type is known at run time
Field: TypeAlias = Any  # google.protobuf.descriptor.FieldDescriptor
MessageType: TypeAlias = Any  # google.protobuf.descriptor.Descriptor
EnumValue: TypeAlias = Any  # google.protobuf.descriptor.EnumValueDescriptor
