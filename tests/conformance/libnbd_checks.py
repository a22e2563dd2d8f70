"""Checks of an NBD export through libnbd: libnbd_checks.py URI READ_ONLY_URI

Each function is one check; its name says what must hold. libnbd's own strictness is switched off
where the server's answer to a wrong request is what is asked for.
"""

import errno
import os
import sys

import nbd

MIB = 1 << 20


def attach(uri):
    handle = nbd.NBD()
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(uri)
    return handle


def error_of(call, *arguments, **named):
    """The errno that the server answers with."""
    try:
        call(*arguments, **named)
    except nbd.Error as error:
        return error.errno
    raise AssertionError(f"{call.__name__}{arguments} succeeded")


def extents_of(handle, length, offset, flags=0):
    found = []

    def collect(context, start, entries, _error):
        assert context == nbd.CONTEXT_BASE_ALLOCATION
        assert start == offset
        found.extend(zip(entries[::2], entries[1::2]))

    handle.block_status(length, offset, collect, flags)
    return found


def structured_replies_and_base_allocation_are_agreed(uri, _):
    handle = attach(uri)
    assert handle.get_protocol() == "newstyle-fixed"
    assert handle.get_structured_replies_negotiated()
    assert handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    assert handle.can_df() and handle.can_fua() and handle.can_flush()
    assert handle.can_trim() and handle.can_zero() and handle.can_multi_conn()
    handle.shutdown()


def a_client_without_structured_replies_is_served(uri, _):
    handle = nbd.NBD()
    handle.set_request_structured_replies(False)
    handle.connect_uri(uri)
    assert not handle.get_structured_replies_negotiated()
    data = os.urandom(70_000)
    handle.pwrite(data, 12_345)
    assert handle.pread(70_000, 12_345) == data
    handle.shutdown()


def a_structured_read_names_data_and_holes(uri, _):
    handle = attach(uri)
    data = os.urandom(64 << 10)
    handle.trim(4 * MIB, 4 * MIB)
    handle.pwrite(data, 5 * MIB)
    seen = bytearray(b"\xee" * (4 * MIB))

    def chunk(part, offset, status, _error):
        assert status in (nbd.READ_DATA, nbd.READ_HOLE), status
        start = offset - 4 * MIB
        assert seen[start : start + len(part)] == b"\xee" * len(part), "chunks overlap"
        seen[start : start + len(part)] = part

    handle.pread_structured(4 * MIB, 4 * MIB, chunk)
    assert seen[MIB : MIB + len(data)] == data
    assert not any(seen[:MIB]) and not any(seen[MIB + len(data) :])
    handle.shutdown()


def df_answers_in_one_piece(uri, _):
    handle = attach(uri)
    handle.trim(4 * MIB, 4 * MIB)
    handle.pwrite(b"x" * 4096, 5 * MIB)
    chunks = []
    handle.pread_structured(
        MIB, 5 * MIB - 65_536, lambda part, at, status, _: chunks.append((at, len(part), status)),
        nbd.CMD_FLAG_DF,
    )
    assert chunks == [(5 * MIB - 65_536, MIB, nbd.READ_DATA)], chunks
    handle.shutdown()


def block_status_covers_what_was_asked(uri, _):
    handle = attach(uri)
    handle.trim(4 * MIB, 4 * MIB)
    handle.pwrite(b"x" * 65_536, 5 * MIB)
    found = extents_of(handle, 4 * MIB, 4 * MIB)
    hole = nbd.STATE_HOLE | nbd.STATE_ZERO
    assert found[0] == (MIB, hole), found
    assert found[1] == (65_536, 0), found
    assert found[2][1] == hole and sum(length for length, _ in found) >= 4 * MIB, found
    one = extents_of(handle, 4 * MIB, 4 * MIB, nbd.CMD_FLAG_REQ_ONE)
    assert one == [(MIB, hole)], one
    handle.shutdown()


def fua_is_taken_on_every_change(uri, _):
    handle = attach(uri)
    handle.pwrite(b"f" * 5_000, 100, nbd.CMD_FLAG_FUA)
    handle.zero(1_000, 200, nbd.CMD_FLAG_FUA)
    handle.trim(4_096, 8_192, nbd.CMD_FLAG_FUA)
    assert handle.pread(100, 100) == b"f" * 100
    assert not any(handle.pread(1_000, 200))
    assert not any(handle.pread(4_096, 8_192))
    assert handle.pread(3_900, 1_200) == b"f" * 3_900
    handle.shutdown()


def zeroes_read_as_zeroes_with_and_without_a_hole(uri, _):
    handle = attach(uri)
    handle.pwrite(b"z" * MIB, 6 * MIB)
    handle.zero(65_536, 6 * MIB, nbd.CMD_FLAG_NO_HOLE)
    handle.zero(65_536, 6 * MIB + 131_072)
    for start in (0, 131_072):
        assert not any(handle.pread(65_536, 6 * MIB + start))
    assert handle.pread(65_536, 6 * MIB + 65_536) == b"z" * 65_536
    if handle.can_fast_zero():
        try:
            handle.zero(65_536, 6 * MIB + 262_144, nbd.CMD_FLAG_FAST_ZERO)
            assert not any(handle.pread(65_536, 6 * MIB + 262_144))
        except nbd.Error as error:
            assert error.errno == "ENOTSUP", error
            assert handle.pread(65_536, 6 * MIB + 262_144) == b"z" * 65_536
    handle.shutdown()


def the_whole_disk_is_trimmed_in_one_request(uri, _):
    handle = attach(uri)
    size = handle.get_size()
    for at in range(0, size, 4 * MIB):
        handle.pwrite(b"t" * 4096, at)
    handle.trim(size, 0)
    hole = nbd.STATE_HOLE | nbd.STATE_ZERO
    assert all(state == hole for _, state in extents_of(handle, size, 0))
    for at in range(0, size, 4 * MIB):
        assert not any(handle.pread(4096, at))
    handle.shutdown()


def the_longest_request_is_served_and_a_longer_one_refused(uri, _):
    handle = attach(uri)
    data = os.urandom(MIB) * 32
    handle.pwrite(data, 3)
    assert handle.pread(32 * MIB, 3) == data
    handle.set_strict_mode(0)
    assert error_of(handle.pread, 32 * MIB + 1, 0) == "EINVAL"
    assert handle.pread(4, 3) == data[:4]
    handle.shutdown()


def wrong_requests_get_the_errors_of_the_protocol(uri, _):
    handle = attach(uri)
    handle.set_strict_mode(0)
    size = handle.get_size()
    assert error_of(handle.pread, 2, size - 1) == "EINVAL"
    assert error_of(handle.pwrite, b"ab", size - 1) == "ENOSPC"
    assert error_of(handle.zero, 2, size - 1) == "ENOSPC"
    assert error_of(handle.trim, 2, size - 1) == "EINVAL"
    assert error_of(handle.pread, 1, 2**63) == "EINVAL"
    assert error_of(handle.pwrite, b"a", 2**63) == "ENOSPC"
    assert error_of(handle.flush, nbd.CMD_FLAG_DF) == "EINVAL"
    assert error_of(handle.trim, 4096, 0, nbd.CMD_FLAG_NO_HOLE) == "EINVAL"
    assert error_of(handle.pread, 4096, 0, 1 << 15) == "EINVAL"
    assert error_of(handle.block_status, 0, 0, lambda *_: None) == "EINVAL"
    assert handle.pread(0, 0) == b""
    # The session is as good as before.
    handle.pwrite(b"good", 0)
    assert handle.pread(4, 0) == b"good"
    handle.shutdown()


def a_read_only_export_answers_eperm(_, read_only):
    handle = attach(read_only)
    assert handle.is_read_only()
    handle.set_strict_mode(0)
    before = handle.pread(4096, 0)
    assert error_of(handle.pwrite, b"x", 0) == "EPERM"
    assert error_of(handle.trim, 4096, 0) == "EPERM"
    assert error_of(handle.zero, 4096, 0) == "EPERM"
    assert handle.pread(4096, 0) == before
    handle.flush()
    handle.shutdown()


def an_unknown_export_is_refused_and_another_can_be_chosen(uri, _):
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_uri(uri)
    name = handle.get_export_name()
    handle.set_export_name("no such export")
    assert error_of(handle.opt_info) == "ENOENT"
    names = []
    handle.opt_list(lambda found, _description: names.append(found))
    assert name in names, names
    handle.set_export_name(name)
    handle.opt_go()
    handle.pread(512, 0)
    handle.shutdown()


def a_flush_covers_other_connections(uri, _):
    first, second = attach(uri), attach(uri)
    data = os.urandom(MIB)
    first.pwrite(data, 7 * MIB)
    second.flush()
    assert second.pread(MIB, 7 * MIB) == data
    second.pwrite(data[::-1], 7 * MIB)
    assert first.pread(MIB, 7 * MIB) == data[::-1]
    first.shutdown()
    second.shutdown()


def hundreds_of_requests_may_be_in_flight(uri, _):
    handle = attach(uri)
    buffers = [os.urandom(4096) for _ in range(400)]
    writes = [
        handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), 8192 * index)
        for index, data in enumerate(buffers)
    ]
    finish(handle, writes)
    targets = [nbd.Buffer(4096) for _ in buffers]
    finish(handle, [handle.aio_pread(target, 8192 * i) for i, target in enumerate(targets)])
    for target, data in zip(targets, buffers):
        assert target.to_bytearray() == data
    handle.shutdown()


def a_hint_to_cache_is_taken(uri, read_only):
    for each in (uri, read_only):
        handle = attach(each)
        assert handle.can_cache()
        handle.cache(handle.get_size(), 0)
        handle.cache(512, 512)
        handle.set_strict_mode(0)
        assert error_of(handle.cache, 512, handle.get_size()) == "EINVAL"
        assert error_of(handle.cache, 512, 0, nbd.CMD_FLAG_REQ_ONE) == "EINVAL"
        handle.shutdown()


def finish(handle, cookies):
    for cookie in cookies:
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)


CHECKS = [
    structured_replies_and_base_allocation_are_agreed,
    a_client_without_structured_replies_is_served,
    a_structured_read_names_data_and_holes,
    df_answers_in_one_piece,
    block_status_covers_what_was_asked,
    fua_is_taken_on_every_change,
    zeroes_read_as_zeroes_with_and_without_a_hole,
    the_whole_disk_is_trimmed_in_one_request,
    the_longest_request_is_served_and_a_longer_one_refused,
    wrong_requests_get_the_errors_of_the_protocol,
    a_read_only_export_answers_eperm,
    an_unknown_export_is_refused_and_another_can_be_chosen,
    a_flush_covers_other_connections,
    hundreds_of_requests_may_be_in_flight,
    a_hint_to_cache_is_taken,
]


def main():
    assert errno.EPERM == 1
    uri, read_only = sys.argv[1:]
    failed = 0
    for check in CHECKS:
        try:
            check(uri, read_only)
            print(f"ok {check.__name__}")
        except Exception as error:  # each check is told apart, whatever its fault
            failed += 1
            line = error.__traceback__
            while line.tb_next:
                line = line.tb_next
            print(f"FAILED {check.__name__}, line {line.tb_lineno}: {error!r}")
    if failed:
        sys.exit(1)
    print("all checks passed")


main()
