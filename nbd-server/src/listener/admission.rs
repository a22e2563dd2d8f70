//! Who may begin a negotiation: a rate, a number, a number per address; and how loudly it is said.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::log::{Level, Line, Log};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::Limits;

/// The limits of one listener.
pub(super) struct Admission {
    bucket: Bucket,
    half_open_max: usize,
    per_address_max: usize,
    half_open: Arc<Mutex<HalfOpen>>,
}

/// A client's place among the half-open ones; given back when dropped.
pub(super) struct Permit {
    half_open: Arc<Mutex<HalfOpen>>,
    number: u64,
    gone: oneshot::Receiver<()>,
}

/// Clients in order of arrival. There are few enough to be counted where that is needed.
#[derive(Default)]
struct HalfOpen {
    next: u64,
    places: BTreeMap<u64, Place>,
}

struct Place {
    ip: Option<IpAddr>,
    /// Dropped, it tells the client to go.
    _stay: oneshot::Sender<()>,
}

impl HalfOpen {
    fn held_by(&self, ip: Option<IpAddr>) -> usize {
        self.places.values().filter(|place| place.ip == ip).count()
    }

    /// Takes the place of the oldest client of the address that holds the most.
    fn make_room(&mut self) {
        // Of addresses that hold as many the one with the oldest client: the last maximum wins.
        let places = self.places.iter().rev();
        let most = places.max_by_key(|(_, place)| self.held_by(place.ip));
        if let Some(number) = most.map(|(number, _)| *number) {
            self.places.remove(&number);
        }
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Admission {
        Admission {
            bucket: Bucket::new(limits.accepts_per_second),
            half_open_max: limits.half_open_max,
            per_address_max: limits.half_open_per_address_max,
            half_open: Arc::default(),
        }
    }

    /// Until the next connection may be accepted.
    pub(super) async fn wait(&mut self) {
        while let Some(delay) = self.bucket.take(Instant::now()) {
            tokio::time::sleep(delay).await;
        }
    }

    /// A place for one more client; `None` if its address holds too many. Where all are taken,
    /// the oldest client of the address that holds the most has to go: crowds make way for
    /// others. Clients without an address (Unix sockets) count as one that has no limit.
    pub(super) fn enter(&self, ip: Option<IpAddr>) -> Option<Permit> {
        let mut half_open = lock(&self.half_open);
        if ip.is_some() && half_open.held_by(ip) >= self.per_address_max {
            return None;
        }
        if half_open.places.len() >= self.half_open_max {
            half_open.make_room();
        }
        let (stay, gone) = oneshot::channel();
        let number = half_open.next;
        half_open.next += 1;
        half_open.places.insert(number, Place { ip, _stay: stay });
        drop(half_open);
        Some(Permit {
            half_open: self.half_open.clone(),
            number,
            gone,
        })
    }
}

impl Permit {
    /// Returns once the place was taken by another client.
    pub(super) async fn taken(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.gone).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.half_open).places.remove(&self.number);
    }
}

/// A token bucket that holds one second's worth.
struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: u32) -> Bucket {
        let per_second = f64::from(per_second.max(1));
        Bucket {
            per_second,
            tokens: per_second,
            at: Instant::now(),
        }
    }

    /// Takes a token, or tells how long until there is one.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64(
            (1.0 - self.tokens) / self.per_second,
        ))
    }
}

/// Log lines that strangers cause: at most one per second, the rest is counted.
#[derive(Default)]
pub(super) struct Complaints(Mutex<Told>);

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    pub(super) fn line(&self, log: &dyn Log, level: Level, text: &str) {
        let Some(more) = self.may_speak(Instant::now()) else {
            return;
        };
        let text = format!("nbd: {text}{more}");
        log.line(Line {
            level,
            code: "",
            volume: None,
            text: &text,
        });
    }

    /// `None` if a line was said just now; else what to add to this one.
    fn may_speak(&self, now: Instant) -> Option<String> {
        let mut told = lock(&self.0);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(1);
        if told.at.is_some_and(is_recent) {
            told.unsaid += 1;
            return None;
        }
        told.at = Some(now);
        Some(match std::mem::take(&mut told.unsaid) {
            0 => String::new(),
            count => format!(" ({count} more lines of this kind were left out)"),
        })
    }
}

/// The log of attached clients: each can be cut off as often as it attaches.
pub(super) struct Restrained {
    pub(super) log: Arc<dyn Log>,
    pub(super) complaints: Complaints,
}

impl Log for Restrained {
    fn line(&self, line: Line<'_>) {
        if let Some(more) = self.complaints.may_speak(Instant::now()) {
            let text = format!("{}{more}", line.text);
            self.log.line(Line {
                text: &text,
                ..line
            });
        }
    }
}

/// Counters stay usable whoever panicked while holding them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(total: usize, per_address: usize) -> Admission {
        let limits = Limits {
            half_open_max: total,
            half_open_per_address_max: per_address,
            ..Limits::default()
        };
        Admission::new(&limits)
    }

    fn is_taken(permit: &mut Permit) -> bool {
        permit.gone.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let admission = admission(3, 2);
        let near = "10.0.0.1".parse().ok();
        let first = admission.enter(near);
        let second = admission.enter(near);
        assert!(first.is_some() && second.is_some());
        assert!(admission.enter(near).is_none());
        drop(first);
        assert!(admission.enter(near).is_some());
    }

    #[test]
    fn where_all_places_are_taken_the_oldest_of_the_largest_crowd_makes_way() {
        let admission = admission(4, 3);
        let ip = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let mut held: Vec<Permit> = [1, 2, 2, 1]
            .into_iter()
            .map(|last| admission.enter(ip(last)).unwrap())
            .collect();
        let _new = admission.enter(ip(3)).unwrap();
        let gone: Vec<bool> = held.iter_mut().map(is_taken).collect();
        assert_eq!(
            gone,
            [true, false, false, false],
            "the oldest of two crowds"
        );
        let _other = admission.enter(ip(4)).unwrap();
        assert!(is_taken(&mut held[1]) && !is_taken(&mut held[2]));
        assert_eq!(lock(&admission.half_open).places.len(), 4);
        drop(held.remove(0));
        assert_eq!(
            lock(&admission.half_open).places.len(),
            4,
            "given up before"
        );
    }

    #[test]
    fn nothing_is_remembered_of_clients_that_are_gone() {
        let admission = admission(4, 4);
        drop(
            (0..4)
                .map(|_| admission.enter("::1".parse().ok()))
                .collect::<Vec<_>>(),
        );
        assert!(lock(&admission.half_open).places.is_empty());
    }

    #[test]
    fn the_rate_allows_a_burst_of_one_second_and_then_delays() {
        let mut bucket = Bucket::new(10);
        let start = bucket.at;
        assert_eq!((0..10).filter_map(|_| bucket.take(start)).count(), 0);
        assert_eq!(bucket.take(start), Some(Duration::from_millis(100)));
        assert_eq!(bucket.take(start + Duration::from_millis(100)), None);
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter_map(|_| bucket.take(later)).count(), 0);
        assert!(
            bucket.take(later).is_some(),
            "an hour saves no more than a second"
        );
    }
}
