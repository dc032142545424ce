from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2 as d

from tools import proto_docs


@pytest.fixture(scope="module")
def files() -> d.FileDescriptorSet:
    return proto_docs.descriptor_set()


def test_every_message_field_and_value_is_documented(files: d.FileDescriptorSet) -> None:
    assert proto_docs.undocumented(files) == []


def test_pages_are_up_to_date(files: d.FileDescriptorSet) -> None:
    pages = proto_docs.render(files)
    written = {str(p.relative_to(proto_docs.OUT)): p.read_text() for p in proto_docs.OUT.rglob("*.md")}
    old = [page for page in {*pages, *written} if pages.get(page) != written.get(page)]
    assert old == [], "run: python tools/proto_docs.py"


def test_an_undocumented_field_is_found() -> None:
    file = d.FileDescriptorProto(name="rec/protos/x.proto", package="rec")
    message = file.message_type.add(name="M")
    message.field.add(name="a")
    message.nested_type.add(name="N").enum_type.add(name="E").value.add(name="V")
    location = file.source_code_info.location.add(path=[4, 0, 2, 0], leading_comments=" Said.\n")
    assert location.path
    found = proto_docs.undocumented(d.FileDescriptorSet(file=[file]))
    assert found == ["x.proto: M", "x.proto: M.N", "x.proto: M.N.E", "x.proto: M.N.E.V"]


def test_links_lead_to_headings(files: d.FileDescriptorSet) -> None:
    import re

    pages = proto_docs.render(files)
    for page, text in pages.items():
        for target, anchor in re.findall(r"\]\(([\w./]*)#([\w]+)\)", text):
            path = (
                str((proto_docs.OUT / page).parent.joinpath(target).resolve().relative_to(proto_docs.OUT))
                if target
                else page
            )
            headings = {h.lower().replace(".", "") for h in re.findall(r"^## (.+)$", pages[path], re.MULTILINE)}
            assert anchor in headings, f"{page}: {target}#{anchor}"
