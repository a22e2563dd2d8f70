//! At the end, to a successor: the session is stopped, and everything it leaves is given away. A
//! successor that does not come up leaves it here.

use std::fs::File;
use std::time::Instant;

use engine::handover::Legacy;
use tracing::{info, warn};

use super::hooks::Followed;
use super::session::{Session, is_in_memory, leave};
use super::{DRAIN_MAX, Daemon, Ended, notify, sockets};
use crate::exit::Exit;
use crate::explain::{self, Failure, counted};
use crate::handover::{Door, Given, Listener, Offer, Role};

impl Daemon<'_> {
    /// Gives everything to a successor.
    pub(super) async fn hand_over(
        &mut self,
        mut session: Session,
        offer: Offer,
    ) -> Result<Ended, Failure> {
        let (pid, release) = (offer.terms.pid, offer.terms.release.clone());
        let began = Instant::now();
        info!(code = "I127", "pid {pid} (pollux {release}) takes over");
        notify::send("STATUS=being taken over");
        session.shared.start_draining();
        session.hooks.take().into_iter().for_each(Followed::leave);
        session.api_file.keep_file();
        session.end_tasks().await;
        let broken = |why: String| explain::cannot_hand_over(&why);
        let stopped = session.nbd.stop_listening().await;
        let open = stopped.map_err(|why| broken(why.to_string()))?;
        let legacy = match tokio::time::timeout(DRAIN_MAX, session.legacy()).await {
            Ok(Ok(legacy)) => legacy,
            Ok(Err(why)) => return Err(broken(why.to_string())),
            // The successor sees the end, and starts by itself.
            Err(_) => leave(&explain::drain_timed_out(DRAIN_MAX)),
        };
        let given = self.gather(session, open, legacy);
        let mut given = given.map_err(|why| broken(why.to_string()))?;
        let count = given.clients.len();
        let giving = tokio::task::spawn_blocking(move || {
            let answer = offer.give(&given);
            (given, answer)
        });
        let answer;
        (given, answer) = giving
            .await
            .map_err(|_| broken("it was not sent".to_owned()))?;
        match answer {
            Ok(()) => {
                // Streams end only when both processes have closed them.
                drop(given);
                self.door.iter_mut().for_each(Door::keep);
                let text = format!(
                    "handed over to pid {pid} with {} in {} ms",
                    counted(count, "client"),
                    began.elapsed().as_millis()
                );
                info!(code = "I128", "{text}");
                Ok(Ended::Over(Exit::Done))
            }
            Err(why) => {
                warn!(
                    code = "W154",
                    "pid {pid} does not take over: {why}; going on here"
                );
                Ok(Ended::Back(given))
            }
        }
    }

    /// Everything the session leaves, in one place.
    fn gather(
        &self,
        session: Session,
        open: nbd_server::Listeners,
        legacy: Legacy,
    ) -> std::io::Result<Given> {
        let Legacy {
            mut volumes,
            mut clients,
            inherited,
        } = legacy;
        let Session {
            engine,
            spec,
            nbd_config,
            mut listeners,
            ..
        } = session;
        // Threads of peers that do not answer may take a second to end.
        tokio::task::spawn_blocking(move || drop(engine));
        // What lived in memory is gone: its clients must not read zeros.
        for volume in spec.volumes.iter().filter(|v| is_in_memory(v)) {
            clients.retain(|client| client.volume != volume.name);
            volumes.retain(|handed| handed.name != volume.name);
        }
        sockets::give_nbd(&nbd_config, open, &mut listeners);
        for (address, socket) in inherited.replication {
            listeners.push(Listener {
                role: Role::Replication,
                address,
                socket: socket.into(),
            });
        }
        if let Some(door) = &self.door {
            let (socket, address) = door.socket()?;
            let role = Role::Handover;
            listeners.push(Listener {
                role,
                address,
                socket,
            });
        }
        let daemon_lock: File = self.lock.copy()?;
        Ok(Given {
            daemon_lock: Some(daemon_lock),
            engine_lock: inherited.lock,
            listeners,
            volumes,
            clients,
            ..Given::default()
        })
    }
}
