//! Making a ring: which of its features this kernel has, tried one by one.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use io_uring::register::Restriction;
use io_uring::{
    Builder, CompletionQueue, EnterFlags, IoUring, Probe, SubmissionQueue, Submitter, cqueue,
    opcode, squeue,
};

use rustix::process::{Resource, getrlimit};

use crate::arena::Arena;
use crate::{Backend, DEPTH_MAX, Features, RingConfig};

/// Bytes of one registered buffer: the kernel takes no larger ones. Arena buffers are aligned to
/// their size, so none crosses a boundary.
pub(super) const FIXED_BUFFER: usize = 1 << 30;

/// The kernel's limit for a submission queue.
const ENTRIES_MAX: u32 = 1024;
const IORING_REGISTER_FILES_UPDATE: u8 = 6;
const IORING_UNREGISTER_RING_FDS: u8 = 21;
const IORING_REGISTER_EVENTFD: u8 = 4;
/// Entries of a second ring's submission queue.
const SIDE_ENTRIES: u32 = 256;

/// Every opcode this crate submits: all must be there, and a restricted ring takes no other.
const OPCODES: [(&str, u8); 15] = [
    ("read", opcode::Read::CODE),
    ("write", opcode::Write::CODE),
    ("read_fixed", opcode::ReadFixed::CODE),
    ("write_fixed", opcode::WriteFixed::CODE),
    ("fsync", opcode::Fsync::CODE),
    ("fallocate", opcode::Fallocate::CODE),
    ("recv", opcode::Recv::CODE),
    ("send", opcode::Send::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("accept", opcode::Accept::CODE),
    ("connect", opcode::Connect::CODE),
    ("poll_add", opcode::PollAdd::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("shutdown", opcode::Shutdown::CODE),
    ("async_cancel", opcode::AsyncCancel::CODE),
];

/// What [`open`] brings.
pub(super) struct Opened {
    pub(super) parts: Parts,
    pub(super) features: Features,
    /// Slots for registered files, 0 when there are none.
    pub(super) fixed_slots: u32,
    /// Bytes of the arena, from its start, that are registered.
    pub(super) fixed_bytes: usize,
}

/// The parts of an io_uring, usable at the same time. `Submitter` remembers the registered ring
/// descriptor, so it lives as long as the ring.
pub(super) struct Parts<
    S: squeue::EntryMarker + 'static = squeue::Entry,
    C: cqueue::EntryMarker + 'static = cqueue::Entry,
> {
    // Dropped in this order: the queues write to the ring's memory when they go.
    pub(super) sq: SubmissionQueue<'static, S>,
    pub(super) cq: CompletionQueue<'static, C>,
    pub(super) submitter: Submitter<'static>,
    _ring: Owned<S, C>,
}

struct Owned<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static>(
    NonNull<IoUring<S, C>>,
);

impl<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static> Drop for Owned<S, C> {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `Parts::new`; the parts that borrow from it are
        // fields declared before this one and already dropped.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static> Drop for Parts<S, C> {
    /// The thread's registration of the ring's descriptor would keep the ring, and with it all
    /// registered files, until the thread ends.
    fn drop(&mut self) {
        // Fails when it was not registered: nothing to undo then.
        let _ = self.submitter.unregister_ring_fd();
    }
}

impl<S: squeue::EntryMarker + 'static, C: cqueue::EntryMarker + 'static> Parts<S, C> {
    fn new(ring: IoUring<S, C>) -> Parts<S, C> {
        let owned = Owned(NonNull::from(Box::leak(Box::new(ring))));
        // SAFETY: the box is freed only by `Owned`, which is dropped after the parts; this is the
        // only reference ever made to it, so `'static` stands for "as long as `Parts`".
        let (submitter, sq, cq) = unsafe { &mut *owned.0.as_ptr() }.split();
        Parts {
            sq,
            cq,
            submitter,
            _ring: owned,
        }
    }

    /// One system call: hands over what is queued, waits for nothing. What the kernel does not
    /// take stays in the queue.
    pub(super) fn enter(&mut self, flags: EnterFlags) -> io::Result<usize> {
        self.sq.sync();
        let to_submit = self.sq.len() as u32;
        // SAFETY: no arguments are passed. Whoever pushed the SQEs vouched for their memory.
        let entered = unsafe {
            self.submitter
                .enter::<libc::sigset_t>(to_submit, 0, flags.bits(), None)
        };
        self.sq.sync();
        entered
    }
}

/// Opens a ring with all this kernel offers. Errors: why not, in plain words.
pub(super) fn open(config: &RingConfig, arena: &Arena) -> Result<Opened, String> {
    let depth = config.depth.clamp(1, DEPTH_MAX);
    let (ring, mut features) = build(depth)?;
    let params = ring.params();
    let needed = [
        ("EXT_ARG", params.is_feature_ext_arg()),
        ("NODROP", params.is_feature_nodrop()),
        ("FAST_POLL", params.is_feature_fast_poll()),
        ("SUBMIT_STABLE", params.is_feature_submit_stable()),
        // Came with Linux 5.19, as did multishot accepts, which no probe tells of.
        ("COOP_TASKRUN", features.coop_taskrun),
    ];
    if let Some((name, _)) = needed.iter().find(|(_, there)| !there) {
        return Err(format!(
            "io_uring of this kernel is too old: it lacks {name}"
        ));
    }
    features.no_iowait = params.is_feature_no_iowait();
    let mut parts = Parts::new(ring);
    let mut probe = Probe::new();
    parts
        .submitter
        .register_probe(&mut probe)
        .map_err(|e| refused(&e))?;
    if let Some((name, _)) = OPCODES.iter().find(|(_, code)| !probe.is_supported(*code)) {
        return Err(format!(
            "io_uring of this kernel is too old: it lacks the operation {name}"
        ));
    }
    features.registered_ring = parts.submitter.register_ring_fd().is_ok();
    let fixed_slots = register_files(&parts.submitter, config.files);
    features.fixed_files = fixed_slots > 0;
    let fixed_bytes = config.fixed_bytes.min(arena.memory().len());
    features.fixed_buffers =
        fixed_bytes > 0 && register(&parts.submitter, arena, fixed_bytes).is_ok();
    let fixed_bytes = if features.fixed_buffers {
        fixed_bytes
    } else {
        0
    };
    if features.restricted {
        features.restricted = restrict(&parts.submitter, OPCODES.map(|(_, code)| code)).is_ok();
        parts
            .submitter
            .register_enable_rings()
            .map_err(|e| refused(&e))?;
    }
    Ok(Opened {
        parts,
        features,
        fixed_slots,
        fixed_bytes,
    })
}

/// A table as large as the process may have descriptors, at most `wanted`; 0 when refused.
fn register_files(submitter: &Submitter<'_>, wanted: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let slots = wanted.min(u32::try_from(limit).unwrap_or(u32::MAX));
    if slots > 0 && submitter.register_files_sparse(slots).is_ok() {
        slots
    } else {
        0
    }
}

/// Tries with everything, and on `EINVAL` again without the newest thing, and so on.
fn build(depth: u32) -> Result<(IoUring, Features), String> {
    let mut with = Features {
        backend: Backend::IoUring,
        single_issuer: true,
        defer_taskrun: true,
        coop_taskrun: true,
        no_sqarray: true,
        submit_all: true,
        registered_ring: false,
        fixed_files: false,
        fixed_buffers: false,
        restricted: true,
        no_iowait: false,
    };
    loop {
        let error = match builder(&with, depth).build(depth.next_power_of_two().min(ENTRIES_MAX)) {
            Ok(ring) => return Ok((ring, with)),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(refused(&error));
        }
        let newest_first = [
            &mut with.no_sqarray,
            &mut with.defer_taskrun,
            &mut with.single_issuer,
            &mut with.coop_taskrun,
            &mut with.submit_all,
            &mut with.restricted,
        ];
        match newest_first.into_iter().find(|flag| **flag) {
            Some(flag) => *flag = false,
            None => return Err(refused(&error)),
        }
    }
}

fn builder(with: &Features, depth: u32) -> Builder {
    let mut builder = IoUring::builder();
    // Twice the operations: cancellations and multishot accepts have completions of their own.
    builder
        .dontfork()
        .setup_clamp()
        .setup_cqsize((depth * 2).next_power_of_two().max(64));
    if with.no_sqarray {
        builder.setup_no_sqarray();
    }
    if with.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    if with.single_issuer {
        builder.setup_single_issuer();
    }
    if with.coop_taskrun {
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
    if with.submit_all {
        builder.setup_submit_all();
    }
    if with.restricted {
        builder.setup_r_disabled();
    }
    builder
}

fn refused(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.is_ok_and(|text| text.trim() != "0");
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled => {
            "io_uring is refused here: EPERM (kernel.io_uring_disabled is set)".to_owned()
        }
        Some(libc::EPERM) => {
            "io_uring is refused here: EPERM (most likely the container's seccomp profile)".into()
        }
        Some(libc::ENOSYS) => "io_uring is not there: ENOSYS (old kernel or a sandbox)".to_owned(),
        Some(libc::ENOMEM) => "io_uring is refused here: ENOMEM (RLIMIT_MEMLOCK or memory)".into(),
        _ => format!("io_uring cannot be set up: {error}"),
    }
}

/// The kernel pins the first `len` bytes; they count against RLIMIT_MEMLOCK of ordinary users.
fn register(submitter: &Submitter<'_>, arena: &Arena, len: usize) -> io::Result<()> {
    let base = arena.memory().base().as_ptr();
    let pieces: Vec<libc::iovec> = (0..len.div_ceil(FIXED_BUFFER))
        .map(|piece| {
            let start = piece * FIXED_BUFFER;
            // SAFETY: `start` is below the mapping's length.
            let iov_base = unsafe { base.add(start) }.cast();
            libc::iovec {
                iov_base,
                iov_len: (len - start).min(FIXED_BUFFER),
            }
        })
        .collect();
    // SAFETY: the pieces lie in the arena's mapping, which the ring holds an `Arc` of and drops
    // after the ring itself.
    unsafe { submitter.register_buffers(&pieces) }
}

/// Our opcodes, files by slot, and afterwards no registration but of files and at the end.
fn restrict(submitter: &Submitter<'_>, opcodes: impl IntoIterator<Item = u8>) -> io::Result<()> {
    let mut list: Vec<Restriction> = opcodes.into_iter().map(Restriction::sqe_op).collect();
    list.push(Restriction::sqe_flags_allowed(
        squeue::Flags::FIXED_FILE.bits(),
    ));
    list.push(Restriction::register_op(IORING_REGISTER_FILES_UPDATE));
    list.push(Restriction::register_op(IORING_UNREGISTER_RING_FDS));
    list.push(Restriction::register_op(IORING_REGISTER_EVENTFD));
    submitter.register_restrictions(&mut list)
}

/// What [`open_side`] brings.
pub(super) struct OpenedSide {
    pub(super) parts: Parts<squeue::Entry128, cqueue::Entry32>,
    pub(super) fixed_slots: u32,
    pub(super) fixed_bytes: usize,
}

/// What a second ring carries.
const SIDE_OPCODES: [u8; 5] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::UringCmd80::CODE,
];

/// Opens a second ring, with large entries. Errors: why not, in plain words.
pub(super) fn open_side(
    config: &RingConfig,
    arena: &Arena,
    depth: u32,
    is_polled: bool,
) -> Result<OpenedSide, String> {
    let mut builder = IoUring::<squeue::Entry128, cqueue::Entry32>::builder();
    builder
        .dontfork()
        .setup_cqsize(depth * 2)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_r_disabled();
    if is_polled {
        builder.setup_iopoll();
    }
    let ring = builder.build(SIDE_ENTRIES).map_err(|error| {
        let found = refused(&error);
        format!("a second ring for it cannot be had (Linux 6.1 is needed): {found}")
    })?;
    let mut parts = Parts::new(ring);
    // Fails where there are no slots for it: then it is named by its descriptor.
    let _ = parts.submitter.register_ring_fd();
    let fixed_slots = register_files(&parts.submitter, config.files);
    let wanted = config.fixed_bytes.min(arena.memory().len());
    let is_registered = wanted > 0 && register(&parts.submitter, arena, wanted).is_ok();
    // A ring that cannot be restricted works as well.
    let _ = restrict(&parts.submitter, SIDE_OPCODES);
    let enabled = parts.submitter.register_enable_rings();
    enabled.map_err(|e| refused(&e))?;
    Ok(OpenedSide {
        parts,
        fixed_slots,
        fixed_bytes: if is_registered { wanted } else { 0 },
    })
}

/// Puts a descriptor (or -1, none) into a slot of the registered files.
pub(super) fn place_file(parts: &Parts, slot: u32, fd: RawFd) -> bool {
    parts.submitter.register_files_update(slot, &[fd]).is_ok()
}
