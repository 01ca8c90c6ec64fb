"""What firectl makes of a storage's answers, and of its own disk."""

import errno
import hashlib
import threading
import time

import pytest

from cli.errors import CliError, Stopped
from cli.transfer import fetching, retries
from cli.transfer.crew import PARALLEL, Crew
from cli.transfer.local_files import LocalFile, read_model_folder
from cli.transfer.parts import Reading

MODEL = "/v1/accounts/acme/models/m"
CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def offered(api):
    """A model of one file that can be downloaded."""
    answer = {
        "filenameToSignedUrls": {"weights.bin": f"{api.url}/storage/w"},
        "filenameToSize": {"weights.bin": str(len(CONTENT))},
        "filenameToSha256": {"weights.bin": SHA256},
    }
    api.on("GET", f"{MODEL}:getDownloadEndpoint", answer)
    return api


def part_of(target):
    return target / f".weights.bin.{SHA256[:12]}.part"


def test_the_rest_of_a_file_is_asked_for_as_a_range(firectl, offered, tmp_path):
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    rest = offered.raw(206, CONTENT[1000:])
    rest.headers = {"Content-Range": f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": '"one"'}
    offered.on("GET", "/storage/w", rest)
    assert firectl("download", "model", "m", str(tmp_path)).code == 0
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT
    assert offered.sent("GET", "/storage/w")[0].headers["range"] == "bytes=1000-"
    assert offered.sent("GET", "/storage/w")[0].headers["accept-encoding"] == "identity"


def test_a_storage_that_knows_no_ranges_sends_it_all_again(firectl, offered, tmp_path):
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    offered.on("GET", "/storage/w", offered.raw(200, CONTENT))
    assert firectl("download", "model", "m", str(tmp_path)).code == 0
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT


def test_a_range_that_begins_elsewhere_is_not_put_together(firectl, offered, tmp_path):
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    wrong = offered.raw(206, CONTENT[500:])
    wrong.headers = {"Content-Range": f"bytes 500-{len(CONTENT) - 1}/{len(CONTENT)}"}
    offered.on("GET", "/storage/w", wrong, offered.raw(200, CONTENT))
    assert firectl("download", "model", "m", str(tmp_path)).code == 0
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT


def test_a_file_that_arrives_as_another_one_is_refused(firectl, offered, tmp_path):
    offered.on("GET", "/storage/w", offered.raw(200, bytes(len(CONTENT))))
    ran = firectl("download", "model", "m", str(tmp_path))
    assert ran.code == 1
    assert "weights.bin arrived as another file" in ran.err
    assert [path.name for path in tmp_path.iterdir() if "weights" in path.name] == []


def test_a_disk_that_is_full_is_told_and_what_arrived_stays(firectl, offered, tmp_path, monkeypatch):
    offered.on("GET", "/storage/w", offered.raw(200, CONTENT))
    add = fetching.Arriving.add

    def full(arriving, chunk):
        if arriving.size:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(arriving, chunk[:1000])

    monkeypatch.setattr(fetching.Arriving, "add", full)
    ran = firectl("download", "model", "m", str(tmp_path))
    assert ran.code == 1
    assert f"the disk of {tmp_path} is full" in ran.err
    assert "type the same command again" in ran.err
    assert part_of(tmp_path).read_bytes() == CONTENT[:1000]


def test_a_disk_without_room_for_all_of_it_takes_nothing(firectl, offered, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: Usage)
    ran = firectl("download", "model", "m", str(tmp_path))
    assert ran.code == 1
    assert "has room for 1.0 KB, and 1.0 MB are to come" in ran.err
    assert offered.sent("GET", "/storage/w") == []


def test_a_model_without_files_is_told(firectl, api, tmp_path):
    api.on("GET", f"{MODEL}:getDownloadEndpoint", {"filenameToSignedUrls": {}})
    assert "has no files to download" in firectl("download", "model", "m", str(tmp_path)).err


def test_the_one_file_that_has_a_folder_is_sent_and_fetched_with_it(firectl, api, tmp_path):
    """How an embedding model pools its tokens stands where sentence-transformers puts it."""
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json", "2_Dense/config.json"):
        place = tmp_path / "model" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(CONTENT)
    folder = read_model_folder(tmp_path / "model")
    assert [file.name for file in folder.files] == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
    ]
    assert folder.skipped == ["2_Dense: a folder; the files of a model stand beside each other"]
    offer = {
        name: {"1_Pooling/config.json": value}
        for name, value in (
            ("filenameToSignedUrls", f"{api.url}/storage/w"),
            ("filenameToSize", str(len(CONTENT))),
            ("filenameToSha256", SHA256),
        )
    }
    api.on("GET", f"{MODEL}:getDownloadEndpoint", offer)
    api.on("GET", "/storage/w", api.raw(200, CONTENT))
    assert firectl("download", "model", "m", str(tmp_path / "to")).code == 0
    assert (tmp_path / "to" / "1_Pooling" / "config.json").read_bytes() == CONTENT


def test_a_network_that_stays_away_is_given_up_and_the_model_is_kept(firectl, api, tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "PATIENCE_SECONDS", 0.05)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"w" * 1000)
    api.on("POST", "/v1/accounts/acme/models", {"name": "accounts/acme/models/m"})
    urls = {name: f"{api.url}/storage/{name}" for name in ("config.json", "model.safetensors")}
    api.on("POST", f"{MODEL}:getUploadEndpoint", {"filenameToSignedUrls": urls})
    for name in urls:
        api.on("PUT", f"/storage/{name}", api.lost())
    ran = firectl("create", "model", "m", str(tmp_path))
    assert ran.code == 1
    assert "was given up, nothing got through any more" in ran.err
    assert f"firectl upload model m {tmp_path}" in ran.err
    assert api.sent("DELETE") == []
    assert len(api.sent("PUT")) >= retries.ATTEMPTS


def test_a_store_that_hangs_up_on_an_old_address_is_asked_at_a_new_one(firectl, api, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"w" * 1000)
    api.on("POST", "/v1/accounts/acme/models", {"name": "accounts/acme/models/m"})
    names = ("config.json", "model.safetensors")
    old, new = ({name: f"{api.url}/{age}/{name}" for name in names} for age in ("old", "new"))
    answers = [{"filenameToSignedUrls": old}, {"filenameToSignedUrls": new}]
    api.on("POST", f"{MODEL}:getUploadEndpoint", *answers)
    for name in names:
        api.on("PUT", f"/old/{name}", api.lost())
        api.on("PUT", f"/new/{name}", api.raw(200, b""))
    api.on("GET", f"{MODEL}:validateUpload", {"warnings": []})
    api.on("GET", MODEL, {"name": "accounts/acme/models/m", "state": "READY", "status": {"code": "OK"}})
    assert firectl("create", "model", "m", str(tmp_path)).code == 0
    assert {put.path for put in api.sent("PUT")} >= {f"/new/{name}" for name in names}


def test_a_piece_that_arrives_damaged_is_sent_again_but_not_for_ever(firectl, api, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"w" * 1000)
    api.on("POST", "/v1/accounts/acme/models", {"name": "accounts/acme/models/m"})
    urls = {name: f"{api.url}/storage/{name}" for name in ("config.json", "model.safetensors")}
    api.on("POST", f"{MODEL}:getUploadEndpoint", {"filenameToSignedUrls": urls})
    api.on("PUT", "/storage/config.json", api.raw(200, b""))
    damaged = api.raw(400, b"<Error><Code>BadDigest</Code><Message>damaged</Message></Error>")
    api.on("PUT", "/storage/model.safetensors", damaged)
    api.on("DELETE", MODEL, {})
    ran = firectl("create", "model", "m", str(tmp_path))
    assert (ran.code, "damaged" in ran.err) == (1, True)
    assert len(api.sent("PUT", "/storage/model.safetensors")) == retries.MOST_DAMAGED


def test_a_piece_that_was_refused_because_its_file_changed_is_told_as_that(firectl, api, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"w" * 1000)
    api.on("POST", "/v1/accounts/acme/models", {"name": "accounts/acme/models/m"})
    urls = {name: f"{api.url}/storage/{name}" for name in ("config.json", "model.safetensors")}
    api.on("POST", f"{MODEL}:getUploadEndpoint", {"filenameToSignedUrls": urls})
    api.on("PUT", "/storage/config.json", api.raw(200, b""))

    def overtaken(_request):
        weights.write_bytes(b"x" * 1000)
        return api.raw(400, b"<Error><Code>BadDigest</Code><Message>damaged</Message></Error>")

    api.on("PUT", "/storage/model.safetensors", overtaken)
    ran = firectl("create", "model", "m", str(tmp_path))
    assert ran.code == 1
    assert f"{weights} changed while it was uploaded" in ran.err
    assert len(api.sent("PUT", "/storage/model.safetensors")) == 1
    assert api.sent("DELETE") == []


def test_parts_are_sent_to_their_addresses_and_what_is_there_is_not(firectl, api, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    pieces = [CONTENT[at : at + 300_000] for at in range(0, len(CONTENT), 300_000)]
    etags = {str(n): hashlib.md5(piece).hexdigest() for n, piece in enumerate(pieces, start=1)}
    api.on("POST", "/v1/accounts/acme/models", {"name": "accounts/acme/models/m"})

    def endpoint(request):
        first = request.body.get("filenameToFirstPart", {}).get("model.safetensors", 1)
        urls = {str(n): f"{api.url}/storage/{n}" for n in range(first, min(first + 2, 5)) if n != 3}
        done = "filenameToSha256" in request.body
        return api.ok(
            {
                "filenameToSignedUrls": {"config.json": f"{api.url}/storage/c"},
                "filenameToParts": {
                    "model.safetensors": {
                        "uploadId": "u",
                        "partSize": "300000",
                        "partCount": 4,
                        "partNumberToEtag": etags if done else {"3": etags["3"]},
                        "partNumberToSignedUrl": {} if done else urls,
                    }
                },
            }
        )

    api.on("POST", f"{MODEL}:getUploadEndpoint", endpoint)
    for name in ("c", "1", "2", "4"):
        api.on("PUT", f"/storage/{name}", api.raw(200, b""))
    api.on("GET", f"{MODEL}:validateUpload", {"warnings": []})
    api.on("GET", MODEL, {"name": "accounts/acme/models/m", "state": "READY", "status": {"code": "OK"}})
    ran = firectl("create", "model", "m", str(tmp_path))
    assert ran.code == 0, ran.err
    sent = {put.path.rpartition("/")[2]: put.content for put in api.sent("PUT")}
    assert sent == {"c": b"{}", "1": pieces[0], "2": pieces[1], "4": pieces[3]}
    assert "300.0 KB of 1.0 MB had arrived before" in ran.err
    told = api.sent("POST", f"{MODEL}:getUploadEndpoint")[-1].body["filenameToSha256"]
    assert told == {"config.json": hashlib.sha256(b"{}").hexdigest(), "model.safetensors": SHA256}


def test_an_upload_that_another_one_took_the_place_of_says_so(firectl, api, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    api.on("POST", "/v1/accounts/acme/models", {"name": "accounts/acme/models/m"})

    def answer(upload_id):
        parts = {"uploadId": upload_id, "partSize": str(len(CONTENT)), "partCount": 1}
        parts["partNumberToSignedUrl"] = {"1": f"{api.url}/storage/1"}
        urls = {"config.json": f"{api.url}/storage/c"}
        return {"filenameToSignedUrls": urls, "filenameToParts": {"model.safetensors": parts}}

    api.on("POST", f"{MODEL}:getUploadEndpoint", answer("mine"), answer("theirs"))
    api.on("PUT", "/storage/c", api.raw(200, b""))
    api.on("PUT", "/storage/1", api.raw(404, b"<Error><Code>NoSuchUpload</Code></Error>"))
    ran = firectl("create", "model", "m", str(tmp_path))
    assert ran.code == 1
    assert "somebody else uploads other files there" in ran.err
    assert api.sent("DELETE") == []


def test_one_reading_gives_the_parts_and_the_checksum_of_the_whole(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    reading = Reading(LocalFile("f", path, len(CONTENT)))
    pieces = list(reading.pieces(300_000))
    assert [(piece.number, piece.offset, piece.size) for piece in pieces] == [
        (1, 0, 300_000),
        (2, 300_000, 300_000),
        (3, 600_000, 300_000),
        (4, 900_000, len(CONTENT) - 900_000),
    ]
    for piece in pieces:
        assert piece.md5 == hashlib.md5(CONTENT[piece.offset :][: piece.size]).hexdigest()
    assert reading.sha256 == SHA256


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_file_of_another_size_than_it_had_is_not_sent(tmp_path, size):
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    with pytest.raises(Stopped, match="changed while it was uploaded"):
        list(Reading(LocalFile("f", path, size)).pieces(300_000))


def test_the_first_failure_of_many_is_the_one_that_is_told():
    stop, begun = threading.Event(), threading.Barrier(PARALLEL)

    def work(number):
        begun.wait(10)
        if number == 2:
            raise CliError("the second one failed")
        stop.wait(10)
        raise CliError("stopped")

    with pytest.raises(CliError, match="the second one failed"), Crew(work, stop) as crew:
        for number in range(PARALLEL):
            crew.give(number)
        crew.finish()


def test_a_crew_has_so_many_at_work_and_as_many_waiting():
    stop, go_on, given = threading.Event(), threading.Event(), []

    def give_many(crew):
        for number in range(5 * PARALLEL):
            crew.give(number)
            given.append(number)
        crew.finish()

    with Crew(lambda _: go_on.wait(10), stop) as crew:
        giver = threading.Thread(target=give_many, args=(crew,))
        giver.start()
        deadline = time.monotonic() + 10
        while len(given) < 2 * PARALLEL and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(given) == 2 * PARALLEL
        go_on.set()
        giver.join(10)
    assert len(given) == 5 * PARALLEL
