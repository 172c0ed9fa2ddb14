"""Archives: what is found in them, and which are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from ctingress.decode_text import decode_text, readable_names
from ctingress.open import Limits, open_archive
from ctingress.refuse import BadArchive, BadRecording

DAT = b"1,0,10,0\r\n2,1000,20,1\r\n3,2000,30,0\r\n"


def names(path: Path) -> list[str]:
    with open_archive(path) as archive:
        return [data_set.name for data_set in archive.data_sets()]


def read_all(path: Path) -> dict[str, Any]:
    """Station of each data set, or its error."""
    found: dict[str, Any] = {}
    with open_archive(path) as archive:
        for data_set in archive.data_sets():
            try:
                found[data_set.name] = data_set.read()[0].station
            except BadRecording as error:
                found[data_set.name] = error
    return found


def test_pairs_are_found_in_any_case_and_at_any_depth(cfg: Any, make_zip: Any) -> None:
    path = make_zip(
        {"a/b/c/X.CFG": cfg(), "a/b/c/x.Dat": DAT, "y #1, left.cfg": cfg(), "y #1, left.DAT": DAT, "readme.txt": "no"}
    )
    assert read_all(path) == {"/a/b/c/X.CFG": "North", "/y #1, left.cfg": "North"}


def test_two_names_that_differ_in_case_only_are_two_recordings(cfg: Any, make_zip: Any) -> None:
    path = make_zip({"a.cfg": cfg(head="one,R,1999"), "a.dat": DAT, "A.CFG": cfg(head="two,R,1999"), "A.DAT": DAT})
    assert read_all(path) == {"/a.cfg": "one", "/A.CFG": "two"}


def test_a_second_config_of_the_same_name_is_not_lost(cfg: Any, make_zip: Any) -> None:
    found = read_all(make_zip({"a.cfg": cfg(), "a.CFG": cfg(head="two,R,1999"), "a.dat": DAT}))
    assert found["/a.cfg"] == "North"
    assert "no DAT file" in str(found["/a.CFG"])


def test_what_has_no_partner_is_an_entry_with_its_error(cfg: Any, make_zip: Any) -> None:
    found = read_all(
        make_zip({"a.cfg": cfg(), "b.dat": DAT, "c.cfg": cfg(), "c.dat": DAT, "__MACOSX/._c.cfg": b"\0\5\x16\7"})
    )
    assert found["/c.cfg"] == "North"
    assert "no DAT file" in str(found["/a.cfg"])
    assert "no CFG file" in str(found["/b.dat"])
    assert "no DAT file" in str(found["/__MACOSX/._c.cfg"])


def test_a_broken_cfg_says_which_file_line_and_field(cfg: Any, make_zip: Any) -> None:
    found = read_all(make_zip({"a.cfg": cfg(frequency="?"), "a.dat": DAT}))
    assert str(found["/a.cfg"]).startswith("CFG line 5, field 1 (line frequency)")


def test_header_and_information_files_come_with_it(cfg: Any, make_zip: Any) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT, "a.HDR": "seen by \xfc".encode("latin-1"), "a.inf": "[Public]\n"})
    with open_archive(path) as archive:
        _, _, hdr, inf = next(archive.data_sets()).read()
    assert (hdr, inf) == ("seen by \xfc", "[Public]\n")


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("Umspannwerk S\xfcd, Wächter", "cp1252"),
        ("Подстанция Северная, линия 4", "cp1251"),
        ("Poste Évron été", "utf-8"),
        ("Größe", "cp1252"),
        ("São João", "cp1252"),
        ("Poste n° 4", "cp1252"),
        ("Łódź Główna", "cp1250"),
        ("Север", "cp1251"),
        ("Ток фазы А", "cp866"),
        ("変電所", "cp932"),
        ("東京変電所 電圧", "shift_jis"),
        ("500kV 变电站", "gb18030"),
        ("线路一 电压", "gb18030"),
        ("變電所", "big5"),
        ("변전소", "cp949"),
        ("Υποσταθμός", "cp1253"),
    ],
)
def test_text_is_utf_8_or_a_legacy_code_page(text: str, page: str) -> None:
    assert decode_text(text.encode(page)) == text
    around = f"North,R,1999\r\n2,2A,0D\r\n1,{text},A,Line 4,kV,0.5,1,0,-32767,32767,1200,5,S\r\n60\r\n1\r\n1000,3\r\n"
    assert decode_text(around.encode(page)) == around


@pytest.mark.parametrize("page", ["utf-8", "cp437", "cp932", "gb18030"])
def test_file_names_are_in_the_code_page_of_whoever_packed_them(cfg: Any, make_zip: Any, page: str) -> None:
    name = {"cp932": "変電所", "gb18030": "变电站"}.get(page, "Größe")
    raw = name.encode(page)
    path = make_zip({"Z" * len(raw) + ".cfg": cfg(), "Z" * len(raw) + ".DAT": DAT})
    path.write_bytes(path.read_bytes().replace(b"Z" * len(raw), raw))
    assert read_all(path) == {f"/{name}.cfg": "North"}


def test_names_of_the_system_that_are_utf_8_stay_as_they_are_beside_others() -> None:
    strange = b"S\xfcd".decode("utf-8", "surrogateescape")
    assert readable_names(["Łódź.cfg", strange + ".cfg", strange + ".dat"]) == ["Łódź.cfg", "Süd.cfg", "Süd.dat"]
    assert readable_names([]) == []


def test_folders_may_be_written_as_windows_writes_them(cfg: Any, make_zip: Any) -> None:
    assert read_all(make_zip({"a\\b\\x.cfg": cfg(), "a\\b\\x.dat": DAT})) == {"/a/b/x.cfg": "North"}


def test_two_members_of_one_name_are_refused(cfg: Any, make_zip: Any) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make_zip({"a.cfg": cfg(), "a.dat": DAT})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a.dat", DAT)
    with pytest.raises(BadArchive, match=r"two members called 'a\.dat'"):
        open_archive(path)


def test_a_note_of_macos_is_called_so(make_zip: Any, cfg: Any) -> None:
    found = read_all(
        make_zip({"a.cfg": cfg(), "a.dat": DAT, "__MACOSX/._a.cfg": b"\0\5\x16\7", "__MACOSX/._a.dat": b"\0\5\x16\7"})
    )
    assert "macOS's own note" in str(found["/__MACOSX/._a.cfg"])


def test_a_byte_order_mark_is_no_part_of_the_station(cfg: Any, make_zip: Any) -> None:
    found = read_all(make_zip({"a.cfg": b"\xef\xbb\xbf" + cfg().encode(), "a.dat": DAT}))
    assert found == {"/a.cfg": "North"}


def test_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"hello")
    with pytest.raises(BadArchive, match="no zip archive"):
        open_archive(tmp_path / "a.zip")
    with pytest.raises(BadArchive, match="no such file"):
        open_archive(tmp_path / "b.zip")


def test_an_empty_archive_and_one_without_recordings_are_refused(make_zip: Any) -> None:
    with pytest.raises(BadArchive, match="is empty"):
        open_archive(make_zip({}))
    with pytest.raises(BadArchive, match=r"no \.cfg or \.cff among its 1 files"):
        open_archive(make_zip({"a.txt": "x"}))


@pytest.mark.parametrize("name", ["../a.cfg", "/etc/a.cfg", "a/../../b.cfg", "C:\\a.cfg", "..\\a.cfg"])
def test_a_path_out_of_the_archive_is_refused(make_zip: Any, name: str) -> None:
    with pytest.raises(BadArchive, match="outside of itself"):
        open_archive(make_zip({name: "x"}))


def test_an_encrypted_archive_is_refused(cfg: Any, make_zip: Any) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 1)
    path.write_bytes(data)
    with pytest.raises(BadArchive, match="is encrypted"):
        open_archive(path)


def test_a_bomb_is_refused_by_files_size_and_ratio(make_zip: Any) -> None:
    with pytest.raises(BadArchive, match="3 members; at most 2"):
        open_archive(make_zip({"a": "", "b": "", "c": ""}), Limits(files=2))
    with pytest.raises(BadArchive, match="at most 10 are taken"):
        open_archive(make_zip({"a.cfg": "x" * 11}), Limits(bytes=10))
    with pytest.raises(BadArchive, match="times its size"):
        open_archive(make_zip({"a.cfg": b"\0" * (20 << 20)}))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_told_in_every_way_of_packing(cfg: Any, tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (("a.cfg", cfg()), ("a.dat", DAT * 100), ("b.cfg", cfg()), ("b.dat", DAT)):
            archive.writestr(name, content)
        at = archive.getinfo("a.dat").header_offset + 30 + len("a.dat")
    data = bytearray(path.read_bytes())
    data[at + 4 : at + 9] = b"\xff" * 5
    path.write_bytes(data)

    found = read_all(path)

    assert "a.dat cannot be unpacked" in str(found["/a.cfg"])
    assert found["/b.cfg"] == "North"


def test_a_damaged_member_is_its_recordings_error(cfg: Any, make_zip: Any) -> None:
    path = make_zip({"a.cfg": cfg(), "a.dat": DAT * 100, "b.cfg": cfg(), "b.dat": DAT})
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("a.dat").header_offset + 30 + len("a.dat") + 5
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = read_all(path)
    assert "a.dat cannot be unpacked" in str(found["/a.cfg"])
    assert found["/b.cfg"] == "North"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\r\n", b"\r"),
        lambda data: data.replace(b"\r\n", b"\n"),
        lambda data: data.replace(b" ---\r\n", b" ----,,\r\n").replace(b"--- file type: ", b"----  FILE TYPE :"),
        lambda data: data.replace(b"--- file", b"\r\n--- file"),
        lambda data: data.replace(b"DAT ASCII", b"DAT"),
    ],
    ids=["byte order mark", "CR alone", "LF alone", "longer separators", "blank lines", "no encoding"],
)
def test_a_cff_is_read_however_its_separators_are_written(cfg: Any, make_zip: Any, change: Any) -> None:
    head = (
        "--- file type: CFG ---\r\n"
        + cfg(head="N,R,2013")
        + "--- file type: INF ---\r\n--- file type: HDR ---\r\nseen\r\n"
    )
    whole = head.encode() + b"--- file type: DAT ASCII ---\r\n" + DAT
    with open_archive(make_zip({"a.cff": change(whole)})) as archive:
        _, samples, hdr, _ = next(archive.data_sets()).read()
    assert samples.values.tolist() == [[6.0, 11.0, 16.0], [0.0, 1.0, 0.0]]
    assert hdr is not None and hdr.strip() == "seen"


def test_a_binary_cff_without_its_length_may_end_with_a_line_end(cfg: Any, make_zip: Any) -> None:
    head = "--- file type: CFG ---\r\n" + cfg(head="N,R,2013", encoding="BINARY") + "--- file type: DAT BINARY ---\r\n"
    found = read_all(make_zip({"a.cff": head.encode() + b"\1" * 36 + b"\r\n"}))
    assert found == {"/a.cff": "N"}


def test_a_cff_that_lacks_a_section_or_is_cut_off_says_so(cfg: Any, make_zip: Any) -> None:
    head = "--- file type: CFG ---\r\n" + cfg(head="N,R,2013", encoding="BINARY")
    found = read_all(
        make_zip(
            {
                "a.cff": head,
                "b.cff": head + "--- file type: DAT BINARY: 999 ---\r\nxx",
                "c.cff": "--- file type: DAT ASCII ---\r\n1,0,1,0\r\n",
                "d.CFF": head + "--- file type: DAT ASCII ---\r\n1,0,1,0\r\n",
            }
        )
    )
    assert "no section '--- file type: DAT" in str(found["/a.cff"])
    assert "should have 999 bytes; 2 are there" in str(found["/b.cff"])
    assert "no section '--- file type: CFG ---'" in str(found["/c.cff"])
    assert "says ASCII, the CFG section BINARY" in str(found["/d.CFF"])
