//! Worker threads for what blocks.
//!
//! ```text
//!  reactor ── run(key, job) ──► queue ──► worker: job() ──► done ── wake ──► reactor: collect
//! ```
//! Workers start one by one as work waits, up to the configured number, and end with the pool.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::op::{BlockingFn, Errno};
use crate::slab::Key;
use crate::waker::Waker;

/// What a worker can do. `Plain` jobs are built without allocating.
pub(crate) enum Job<P> {
    Run(BlockingFn),
    Plain(P),
}

/// File work a back end describes without a closure.
pub(crate) trait Plain: Send + 'static {
    fn run(self) -> io::Result<u32>;
}

/// For a back end that has none.
pub(crate) enum Never {}

impl Plain for Never {
    fn run(self) -> io::Result<u32> {
        match self {}
    }
}

pub(crate) type Done = (Key, Result<u32, Errno>);

struct Queue<P> {
    jobs: VecDeque<(Key, Job<P>)>,
    idle: usize,
    stop: bool,
}

struct Shared<P> {
    queue: Mutex<Queue<P>>,
    ready: Condvar,
    done: Mutex<Vec<Done>>,
    /// Entries in `done`: lets the reactor look without taking the lock.
    done_count: AtomicUsize,
    waker: Waker,
}

pub(crate) struct Pool<P: Plain> {
    shared: Arc<Shared<P>>,
    workers: Vec<JoinHandle<()>>,
    workers_max: usize,
}

/// No code panics while holding these locks, and if one did the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Plain> Pool<P> {
    pub(crate) fn new(workers_max: usize, waker: Waker) -> Pool<P> {
        let queue = Mutex::new(Queue {
            jobs: VecDeque::new(),
            idle: 0,
            stop: false,
        });
        let (ready, done) = (Condvar::new(), Mutex::new(Vec::new()));
        let shared = Shared {
            queue,
            ready,
            done,
            done_count: AtomicUsize::new(0),
            waker,
        };
        Pool {
            shared: Arc::new(shared),
            workers: Vec::new(),
            workers_max: workers_max.max(1),
        }
    }

    /// Queues a job. If no thread can be started at all it runs here and now.
    pub(crate) fn run(&mut self, key: Key, job: Job<P>) {
        let mut queue = lock(&self.shared.queue);
        queue.jobs.push_back((key, job));
        let short_of_hands = queue.jobs.len() > queue.idle;
        drop(queue);
        self.shared.ready.notify_one();
        if short_of_hands && self.workers.len() < self.workers_max {
            let shared = Arc::clone(&self.shared);
            let name = format!("ring-worker-{}", self.workers.len());
            let spawned = std::thread::Builder::new()
                .name(name)
                .spawn(move || work(&shared));
            match spawned {
                Ok(handle) => self.workers.push(handle),
                Err(_) if self.workers.is_empty() => work_off(&self.shared),
                Err(_) => {}
            }
        }
    }

    /// Takes a job back that no worker has begun.
    pub(crate) fn cancel(&mut self, key: Key) -> bool {
        let mut queue = lock(&self.shared.queue);
        let found = queue.jobs.iter().position(|(queued, _)| *queued == key);
        found.and_then(|at| queue.jobs.remove(at)).is_some()
    }

    /// Moves results to `out`; no lock when there are none.
    pub(crate) fn collect(&mut self, out: &mut Vec<Done>) {
        if self.shared.done_count.load(Ordering::Acquire) > 0 {
            let mut done = lock(&self.shared.done);
            self.shared.done_count.store(0, Ordering::Release);
            out.append(&mut done);
        }
    }
}

impl<P: Plain> Drop for Pool<P> {
    /// Jobs not begun are dropped; those begun are waited for.
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.stop = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.ready.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its job's panics, so there is nothing to learn here.
            let _ = worker.join();
        }
    }
}

fn work<P: Plain>(shared: &Shared<P>) {
    loop {
        let mut queue = lock(&shared.queue);
        let (key, job) = loop {
            if queue.stop {
                return;
            }
            if let Some(next) = queue.jobs.pop_front() {
                break next;
            }
            queue.idle += 1;
            queue = shared
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        };
        drop(queue);
        finish(shared, key, job);
    }
}

fn work_off<P: Plain>(shared: &Shared<P>) {
    loop {
        let next = lock(&shared.queue).jobs.pop_front();
        let Some((key, job)) = next else { return };
        finish(shared, key, job);
    }
}

fn finish<P: Plain>(shared: &Shared<P>, key: Key, job: Job<P>) {
    let result = catch_unwind(AssertUnwindSafe(|| match job {
        Job::Run(run) => run(),
        Job::Plain(plain) => plain.run(),
    }));
    let result = result.map_or(Err(Errno::IO), |done| {
        done.map_err(|error| Errno::of(&error))
    });
    let mut done = lock(&shared.done);
    done.push((key, result));
    shared.done_count.store(done.len(), Ordering::Release);
    drop(done);
    shared.waker.wake();
}
