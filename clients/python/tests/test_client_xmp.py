"""XMP sidecars as other programs write them: added to, and given back as they were."""

import re

import pytest
from lxml import etree
from ram_client.sinks.sidecars import Sidecars
from ram_client.sinks.sink import WriteFailed
from ram_client.sinks.xmp import Document
from ram_client.tag import Tag

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
LR = 'xmlns:lr="http://ns.adobe.com/lightroom/1.0/"'

# As each program writes them, shortened.
DARKTABLE = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF {RDF}>
  <rdf:Description rdf:about="" xmlns:darktable="http://darktable.sf.net/"
    {DC} {LR} darktable:xmp_version="5">
   <dc:subject>
    <rdf:Bag>
     <rdf:li>holiday</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>places|beach</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <darktable:history>
    <rdf:Seq>
     <rdf:li darktable:num="0" darktable:operation="rawprepare"/>
    </rdf:Seq>
   </darktable:history>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
LIGHTROOM = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF {RDF}>
  <rdf:Description rdf:about="" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   {DC} crs:Exposure2012="+0.50">
   <!-- edited -->
   <dc:subject>
    <rdf:Bag>
     <rdf:li>cat</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
                                                                                \n\
<?xpacket end="w"?>"""
EXIFTOOL = f"""<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>
<rdf:RDF {RDF}>

 <rdf:Description rdf:about='' xmlns:exif='http://ns.adobe.com/exif/1.0/'>
  <exif:Flash rdf:parseType='Resource'>
   <exif:Fired>False</exif:Fired>
  </exif:Flash>
 </rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end='w'?>"""
DIGIKAM = f"""<?xml version="1.0" encoding="UTF-8"?>
<rdf:RDF {RDF} xmlns:k="http://www.digikam.org/ns/1.0/"><rdf:Description rdf:about="">\
<k:TagsList><rdf:Seq><rdf:li>People/Ann &amp; Bob</rdf:li></rdf:Seq></k:TagsList>\
</rdf:Description></rdf:RDF>
"""
PROGRAMS = pytest.mark.parametrize("text", [DARKTABLE, LIGHTROOM, EXIFTOOL, DIGIKAM])


def parsed(data):
    document = Document(data)
    return document._texts("{http://purl.org/dc/elements/1.1/}subject"), document._texts(
        "{http://ns.adobe.com/lightroom/1.0/}hierarchicalSubject"
    )


@PROGRAMS
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_is_added_can_be_removed_and_leaves_nothing(text, end, encoding):
    text = text.replace("\n", end)
    document = Document(text.encode(encoding))
    assert document.add(["tree", "树"], "ram") == ["tree", "树"]
    added = document.to_bytes()
    keywords, paths = parsed(added)
    assert keywords[-2:] == ["tree", "树"] and paths[-2:] == ["ram|tree", "ram|树"]
    document = Document(added)
    assert document.has("ram") and not document.has("other")
    assert document.add(["tree", "树"], "ram") == []
    assert document.remove("ram") == ["tree", "树"]
    removed = document.to_bytes().decode(encoding)
    parser = etree.XMLParser(remove_comments=False, remove_pis=False)
    before, after = (etree.fromstring(data.encode(), parser) for data in (text, removed))
    assert etree.tostring(before, method="c14n") == etree.tostring(after, method="c14n")
    root = re.compile(r"<(x:xmpmeta|rdf:RDF).*</\1>", re.DOTALL)
    assert root.split(removed) == root.split(text)
    assert removed.count(end) == removed.count("\n")


def test_a_keyword_of_the_users_own_is_never_taken_for_ours():
    document = Document(LIGHTROOM.encode())
    assert document.add(["cat", "tree"], "ram") == ["tree"]
    assert parsed(document.to_bytes()) == (["cat", "tree"], ["ram|tree"])
    document.remove("ram")
    assert parsed(document.to_bytes()) == (["cat"], [])


def test_a_keyword_that_another_program_has_placed_since_stays():
    document = Document(DARKTABLE.encode())
    document.add(["sea", "tree"], "ram")
    text = document.to_bytes().replace(b"places|beach", b"places|sea")
    document = Document(text)
    document.remove("ram")
    assert parsed(document.to_bytes()) == (["holiday", "sea"], ["places|sea"])


def test_prefixes_do_not_mix():
    document = Document()
    document.add(["cat"], "ram")
    document.add(["dog"], "r")
    assert document.remove("r") == ["dog"]
    assert parsed(document.to_bytes()) == (["cat"], ["ram|cat"])


@pytest.mark.parametrize(
    "property",
    [
        "<dc:subject>holiday</dc:subject>",
        "<dc:subject><rdf:Seq><rdf:li>holiday</rdf:li></rdf:Seq></dc:subject>",
        "<dc:subject><rdf:Bag>\n<rdf:li> holiday </rdf:li></rdf:Bag></dc:subject>",
    ],
)
def test_lists_of_other_kinds_are_added_to(property):
    text = f"<rdf:RDF {RDF} {DC}><rdf:Description>{property}</rdf:Description></rdf:RDF>"
    document = Document(text.encode())
    document.add(["cat"], "ram")
    assert parsed(document.to_bytes()) == (["holiday", "cat"], ["ram|cat"])


def test_a_property_in_an_attribute_becomes_a_list():
    text = f'<rdf:RDF {RDF} {DC}><rdf:Description dc:subject="holiday"/></rdf:RDF>'
    document = Document(text.encode())
    document.add(["holiday", "cat"], "ram")
    assert parsed(document.to_bytes()) == (["holiday", "cat"], ["ram|cat"])


def test_a_document_without_a_description_gets_one():
    document = Document(f"<rdf:RDF {RDF}></rdf:RDF>".encode())
    document.add(["cat"], "ram")
    assert parsed(document.to_bytes()) == (["cat"], ["ram|cat"])


def test_utf_16_stays_utf_16():
    document = Document(LIGHTROOM.encode("utf-16"))
    document.add(["树"], "ram")
    assert "<rdf:li>树</rdf:li>" in document.to_bytes().decode("utf-16")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not well-formed XML"),
        (b"<x:xmpmeta", "is not well-formed XML"),
        (DARKTABLE.encode()[:300], "is not well-formed XML"),
        (b"<html></html>", "is not XMP"),
        (b"\xff\xd8\xff\xe0JFIF", "is not well-formed XML"),
        (f"<!DOCTYPE a><rdf:RDF {RDF}></rdf:RDF>".encode(), "is not XMP"),
        (
            b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            + f"<rdf:RDF {RDF}>&e;</rdf:RDF>".encode(),
            "is not XMP",
        ),
        (f"<rdf:RDF {RDF}>\xe4</rdf:RDF>".encode("latin-1"), "is not well-formed XML"),
    ],
)
def test_what_is_not_a_sidecar_is_left_as_it_is(tmp_path, data, complaint):
    path = tmp_path / "a.jpg.xmp"
    path.write_bytes(data)
    sidecars = Sidecars(name=None, prefix="ram", language="en")
    for call in (
        lambda: sidecars.add(tmp_path / "a.jpg", [Tag("cat", "猫", 0.9, 0)]),
        lambda: sidecars.has(tmp_path / "a.jpg"),
        lambda: sidecars.remove(tmp_path / "a.jpg", dry_run=False),
    ):
        with pytest.raises(WriteFailed, match="it was left as it is") as raised:
            call()
        assert str(raised.value).startswith(f"{path}: {complaint}")
        assert "\n" not in str(raised.value)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("existing", "name", "expected"),
    [
        ([], None, "a.jpg.xmp"),
        ([], "lightroom", "a.xmp"),
        ([], "darktable", "a.jpg.xmp"),
        (["a.xmp"], None, "a.xmp"),
        (["a.XMP"], None, "a.XMP"),
        (["a.xmp", "a.jpg.xmp"], None, "a.jpg.xmp"),
        (["a.xmp"], "darktable", "a.jpg.xmp"),
    ],
)
def test_the_sidecar_that_exists_is_used(tmp_path, existing, name, expected):
    for file in existing:
        (tmp_path / file).write_text(DARKTABLE)
    sidecars = Sidecars(name=name, prefix="ram", language="both")
    picture, tags = tmp_path / "a.jpg", [Tag("cat", "猫", 0.9, 0)]
    assert sidecars.preview(picture, tags) == f"{tmp_path / expected}: add cat, 猫"
    sidecars.add(picture, tags)
    assert sidecars.has(picture)
    assert parsed((tmp_path / expected).read_bytes())[1][-2:] == ["ram|cat", "ram|猫"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*existing, expected})


def test_a_sidecar_of_ours_is_deleted_with_its_last_tag(tmp_path):
    sidecars = Sidecars(name=None, prefix="ram", language="en")
    sidecars.add(tmp_path / "a.jpg", [Tag("cat", "猫", 0.9, 0)])
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    sidecars.add(tmp_path / "a.jpg", [Tag("cat", "猫", 0.9, 0)])
    assert path.read_bytes() == written
    assert sidecars.remove(tmp_path / "a.jpg", dry_run=True) == f"{path}: delete"
    assert path.read_bytes() == written
    assert sidecars.remove(tmp_path / "a.jpg", dry_run=False) == f"{path}: delete"
    assert not path.exists()
    assert sidecars.remove(tmp_path / "a.jpg", dry_run=False) is None


def test_mode_and_link_of_a_sidecar_stay(tmp_path):
    real, link = tmp_path / "real.xmp", tmp_path / "a.jpg.xmp"
    real.write_text(DARKTABLE)
    real.chmod(0o640)
    link.symlink_to(real)
    Sidecars(name=None, prefix="ram", language="en").add(
        tmp_path / "a.jpg", [Tag("cat", "猫", 0.9, 0)]
    )
    assert link.is_symlink() and b"ram|cat" in real.read_bytes()
    assert real.stat().st_mode & 0o777 == 0o640
    assert len(list(tmp_path.iterdir())) == 2


def test_names_that_xmp_cannot_contain(tmp_path):
    sidecars = Sidecars(name=None, prefix="ram", language="en")
    sidecars.add(tmp_path / "a.jpg", [Tag("black|white & <grey>", "", 0.9, 0)])
    (path,) = tmp_path.iterdir()
    assert parsed(path.read_bytes())[1] == ["ram|black/white & <grey>"]
    with pytest.raises(WriteFailed, match=r"b\.jpg\.xmp: .*control characters"):
        sidecars.add(tmp_path / "b.jpg", [Tag("bell\a", "", 0.9, 0)])
    assert not (tmp_path / "b.jpg.xmp").exists()
