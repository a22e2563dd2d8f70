//! Which back end `open_ring` takes, each case in a process of its own.

use std::process::Command;

use engine_ring::{Arena, ArenaConfig, Class, Op, RingConfig, Wait, open_ring};

/// Runs `child` below in a fresh process and gives what it printed.
fn choice(variable: &str, value: &str) -> String {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    command.args(["--ignored", "--exact", "child", "--nocapture"]);
    command.env_remove("POLLUX_IO").env(variable, value);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "the other tests run it in processes of its own"]
fn child() {
    if std::env::var_os("TEST_REFUSES_IO_URING").is_some() {
        refuse_io_uring();
    }
    if std::env::var_os("TEST_LIMITS_LOCKED_MEMORY").is_some() {
        limit_locked_memory();
    }
    let mut arena = Arena::new(&ArenaConfig::with_bytes(0, 32 << 20)).unwrap();
    let (mut ring, chosen) = match open_ring(&RingConfig::default(), &arena) {
        Ok(opened) => opened,
        Err(error) => {
            println!("error: {error}");
            return;
        }
    };
    println!("{:?}: {}", chosen.backend, chosen.why);
    assert_eq!(ring.features().backend, chosen.backend);
    println!("fixed_buffers={}", ring.features().fixed_buffers);
    let file = ring.register(std::fs::File::open("/proc/self/exe").unwrap().into());
    let buf = arena.alloc(Class::Client, 4096).unwrap();
    let read = Op::ReadAt {
        file,
        buf: buf.slice(0, 4),
        at: 0,
    };
    ring.push(&mut arena, 1, read);
    let mut done = Vec::new();
    while done.is_empty() {
        ring.enter(&mut arena, Wait::Until(u64::MAX), &mut done);
    }
    println!("read {:?}", &arena.bytes(buf)[..4]);
}

/// What a container's seccomp profile does: `io_uring_setup` fails with EPERM.
fn refuse_io_uring() {
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The system call's number is the first word of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its filter are live locals; the kernel copies them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    assert!(done, "seccomp filters: {}", std::io::Error::last_os_error());
}

/// An ordinary user with room for 1 MiB of locked memory.
fn limit_locked_memory() {
    let limit = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    // SAFETY: the limit is a live local; the ids are plain numbers.
    let done = unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0
            && (libc::geteuid() != 0 || libc::setuid(65_534) == 0)
    };
    assert!(done, "limits: {}", std::io::Error::last_os_error());
}

#[test]
fn posix_can_be_asked_for() {
    let said = choice("POLLUX_IO", "posix");
    assert!(said.contains("Posix: POLLUX_IO asks"), "{said}");
    assert!(said.contains("read [127, 69, 76, 70]"), "{said}");
}

#[test]
fn another_word_is_an_error() {
    for word in ["epoll", "", "POSIX"] {
        let said = choice("POLLUX_IO", word);
        let expected = format!("error: POLLUX_IO is `{word}`; it may be `io_uring` or `posix`");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn a_container_without_io_uring_gets_posix_and_the_reason() {
    let said = choice("TEST_REFUSES_IO_URING", "1");
    assert!(
        said.contains("Posix: io_uring is refused here: EPERM"),
        "{said}"
    );
    assert!(said.contains("read [127, 69, 76, 70]"), "{said}");
}

#[test]
fn a_user_without_locked_memory_gets_unregistered_buffers() {
    let said = choice("TEST_LIMITS_LOCKED_MEMORY", "1");
    if said.contains("IoUring") {
        assert!(said.contains("fixed_buffers=false"), "{said}");
    }
    assert!(said.contains("read [127, 69, 76, 70]"), "{said}");
}
