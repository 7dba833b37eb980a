"""An XMP document (ISO 16684-1), read and changed with lxml: what is not ours stays as it was.

The tags go into two properties, both bags of texts: `dc:subject`, which has keywords, and
`lr:hierarchicalSubject`, which has paths of keywords with bars between them. There a tag is
`PREFIX|tag`, so that it can be told apart. A keyword in `dc:subject` is ours if it has such a twin;
one that was there before gets no twin, and so is never taken for ours.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

Element = Any  # lxml has no types of its own

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
LR = "{http://ns.adobe.com/lightroom/1.0/}"
META = "{adobe:ns:meta/}"
SUBJECT = f"{DC}subject"
HIERARCHICAL = f"{LR}hierarchicalSubject"
NAMESPACES = {"dc": DC[1:-1], "lr": LR[1:-1], "rdf": RDF[1:-1]}
TOOLKIT = "ram-tag"  # that a new document names

NEW = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="{META[1:-1]}" x:xmptk="{TOOLKIT}">
 <rdf:RDF xmlns:rdf="{RDF[1:-1]}">
  <rdf:Description rdf:about="" xmlns:dc="{DC[1:-1]}" xmlns:lr="{LR[1:-1]}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
MISC = r"(?:\s|<\?.*?\?>|<!--.*?-->)*"  # what may stand before and after the root
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Document:
    """An XMP document: a sidecar's bytes, or without any a new one."""

    def __init__(self, data: bytes | None = None):
        """Parse; raises ValueError for anything but XMP, with a message that follows a name."""
        data = NEW.encode() if data is None else data
        # No entities, no DTD, no network: XMP has none of them, and an attack would.
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
        try:
            root = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            raise ValueError(f"is not well-formed XML: {error.msg}") from error
        info = root.getroottree().docinfo
        rdf = root if root.tag == f"{RDF}RDF" else root.find(f".//{RDF}RDF")
        if rdf is None or info.doctype:
            raise ValueError("is not XMP")
        self._root: Element = root
        self._rdf: Element = rdf
        # Before and after the root, where lxml drops white space, the text itself is kept.
        self._encoding = "utf-16" if data.startswith(UTF_16) else info.encoding or "utf-8"
        text = data.decode(self._encoding)
        self._before, self._after = _around_root(text)
        self._line_end = "\r\n" if "\r\n" in text else "\n"

    def add(self, names: list[str], prefix: str) -> list[str]:
        """Add the tags that are missing, and return them."""
        keywords, paths = set(self._texts(SUBJECT)), set(self._texts(HIERARCHICAL))
        missing = [
            name
            for name in dict.fromkeys(name.replace("|", "/") for name in names)
            if name not in keywords and f"{prefix}|{name}" not in paths
        ]
        if missing:
            self._append(SUBJECT, missing)
            self._append(HIERARCHICAL, [f"{prefix}|{name}" for name in missing])
        return missing

    def remove(self, prefix: str) -> list[str]:
        """Remove what `add` added with this prefix, and return the tags."""
        start = f"{prefix}|"
        paths = self._texts(HIERARCHICAL)
        ours = [path.removeprefix(start) for path in paths if path.startswith(start)]
        others = (path.split("|") for path in paths if not path.startswith(start))
        needed = {level for path in others for level in path}  # by keywords of other programs
        self._drop(HIERARCHICAL, {start + name for name in ours})
        self._drop(SUBJECT, set(ours) - needed)
        return ours

    def has(self, prefix: str) -> bool:
        """Whether there is a tag with this prefix."""
        return any(path.startswith(f"{prefix}|") for path in self._texts(HIERARCHICAL))

    def is_bare(self) -> bool:
        """Whether this is a document that `ram-tag` began, and nothing is in it."""
        return self._root.get(f"{META}xmptk") == TOOLKIT and not any(
            len(description) or set(description.attrib) - {f"{RDF}about"}
            for description in self._descriptions()
        )

    def to_bytes(self) -> bytes:
        """The document in its own encoding, with its packet, padding and comments."""
        root: str = etree.tostring(self._root, encoding="unicode", with_tail=False)
        text = self._before + root.replace("\n", self._line_end) + self._after
        return text.encode(self._encoding, "xmlcharrefreplace")

    def _descriptions(self) -> list[Element]:
        return [element for element in self._rdf if isinstance(element.tag, str)]

    def _properties(self, tag: str) -> Iterator[Element]:
        """The elements of a property; one in an attribute or without a list becomes a list."""
        for description in self._descriptions():
            if (value := description.attrib.pop(tag, None)) is not None:
                self._begin(description, tag, [value])
            yield from description.findall(tag)

    def _texts(self, tag: str) -> list[str]:
        texts = []
        for description in self._descriptions():
            texts.append(description.get(tag))
            for element in description.findall(tag):
                texts += [item.text for item in element.iter(f"{RDF}li")] or [element.text]
        return [text.strip() for text in texts if text and text.strip()]

    def _append(self, tag: str, texts: list[str]) -> None:
        for element in self._properties(tag):
            items = next((child for child in element if isinstance(child.tag, str)), None)
            if items is None:  # a single text
                texts = [*filter(None, [(element.text or "").strip()]), *texts]
                parent = element.getparent()
                _take_out(element)
                self._begin(parent, tag, texts)
            else:
                for text in texts:
                    _put_in(items, f"{RDF}li").text = text
            return
        if not self._descriptions():
            _put_in(self._rdf, f"{RDF}Description").set(f"{RDF}about", "")
        self._begin(self._descriptions()[0], tag, texts)

    def _begin(self, description: Element, tag: str, texts: list[str]) -> None:
        element = _put_in(description, tag)
        items = _put_in(element, f"{RDF}Bag")
        for text in texts:
            _put_in(items, f"{RDF}li").text = text

    def _drop(self, tag: str, texts: set[str]) -> None:
        for description in self._descriptions():
            for element in description.findall(tag):
                found = [
                    item
                    for item in element.iter(f"{RDF}li")
                    if item.text and item.text.strip() in texts
                ]
                for item in found:
                    _take_out(item)
                if found and next(element.iter(f"{RDF}li"), None) is None:
                    _take_out(element)


def _around_root(text: str) -> tuple[str, str]:
    before = re.match(rf"\ufeff?{MISC}", text, re.DOTALL)
    assert before
    for end in re.finditer(r"</[^<>]*>|/>", text):
        if re.fullmatch(MISC, text[end.end() :], re.DOTALL):
            return before[0], text[end.end() :]
    raise ValueError("is not XMP")


def _put_in(parent: Element, tag: str) -> Element:
    """Append an element, indented as its sibling, or by a space more than its parent."""
    prefixes = {prefix: uri for prefix, uri in NAMESPACES.items() if tag.startswith(f"{{{uri}}}")}
    element = etree.SubElement(parent, tag, nsmap=prefixes)
    before = element.getprevious()
    if before is not None:
        element.tail, before.tail = before.tail, parent.text
    elif "\n" in (outer := _indentation(parent)):
        parent.text, element.tail = f"{outer} ", outer
    return element


def _take_out(element: Element) -> None:
    """Remove an element and the white space that indents it."""
    before, parent = element.getprevious(), element.getparent()
    if element.getnext() is None:
        if before is not None:
            before.tail = element.tail
        else:
            parent.text = None
    parent.remove(element)


def _indentation(element: Element) -> str:
    """The white space before an element, or nothing."""
    before, parent = element.getprevious(), element.getparent()
    outer = "" if parent is None else parent.text
    text = (outer if before is None else before.tail) or ""
    return text if text.isspace() else ""
