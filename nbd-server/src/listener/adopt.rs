//! Listeners and clients that go to another process, or come from one.

use std::io;
use std::net::{IpAddr, SocketAddr};

use engine::front_end::{AttachError, Attachment, ClientInfo, Connection, Ctx};
use engine::handover::HandedClient;
use nbd_proto::{ExportName, Exports, Refusal};

use super::{Listener, Listeners, NbdServer, StartError, bind};
use crate::config::NbdConfig;
use crate::connection::{NbdConnection, Who};
use crate::exports::ClientExports;
use crate::handover::{self, Malformed};

/// Why a client of another process is not taken over. Its socket is closed.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Its state cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The export is not configured any more, or not for this client, or not served here.
    #[error("{0}")]
    Refused(String),
    /// The export is no longer what the client was told.
    #[error("{0}")]
    Changed(&'static str),
    /// Its volume does not take it.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl NbdServer {
    /// As [`NbdServer::stop`], but the listening sockets stay open: connections that come from now
    /// on wait for whoever accepts next. Errors: a socket cannot be taken from the runtime.
    pub async fn stop_listening(&self) -> io::Result<Listeners> {
        self.stopping.send_replace(true);
        let mut open = Listeners::default();
        for accepting in self.loops.lock().await.drain(..) {
            match accepting.await.map_err(io::Error::other)? {
                Listener::Tcp(listener) => open.tcp = Some(listener.into_std()?),
                Listener::Unix { listener, file } => {
                    file.keep();
                    open.unix = Some(listener.into_std()?);
                }
            }
        }
        Ok(open)
    }

    /// Goes on with a client of another process, if its export is still what it was told. Its
    /// volume must serve by now.
    pub fn adopt(&self, client: HandedClient) -> Result<(), AdoptError> {
        let shared = &self.shared;
        let HandedClient {
            client,
            age,
            socket,
            state,
            ..
        } = client;
        let (agreed, early) = handover::decode(&client.export.name(), &state)?;
        let catalogue = shared.catalogue();
        let exports = ClientExports {
            catalogue: &catalogue,
            address: address_of(&client.address),
            // Clients under TLS are not handed over.
            subject: None,
        };
        let name = &agreed.export.name;
        let now = exports
            .lookup(name)
            .map_err(|refusal| AdoptError::Refused(words(name, refusal)))?;
        if let Some(why) = handover::misfit(&agreed, &now) {
            return Err(AdoptError::Changed(why));
        }
        let Some(claim) = catalogue.claim(name, &client.address) else {
            return Err(AdoptError::Refused(words(name, Refusal::Unknown)));
        };
        let volume = claim.volume.clone();
        let limits = shared.limits;
        let who = Who {
            volume: volume.clone(),
            export: claim.label.clone(),
            address: client.address.clone(),
            log: shared.client_log.clone(),
            _seat: claim.seat,
        };
        let make = move |ctx: &mut Ctx<'_>| {
            ctx.set_age(age);
            Box::new(NbdConnection::open(&agreed, early, who, limits, ctx)) as Box<dyn Connection>
        };
        let client = ClientInfo {
            export: claim.label,
            ..client
        };
        let attachment = Attachment {
            socket,
            client,
            make: Box::new(make),
        };
        Ok(shared.volumes.attach(&volume, attachment)?)
    }
}

fn words(name: &ExportName, refusal: Refusal) -> String {
    match refusal {
        Refusal::Unknown => format!("export `{name}` is not configured any more"),
        Refusal::Policy(text) | Refusal::Shutdown(text) | Refusal::Tls(text) => text,
    }
}

/// The address of a client that came over TCP, from its words for people.
fn address_of(text: &str) -> Option<IpAddr> {
    text.parse::<SocketAddr>().ok().map(|address| address.ip())
}

impl Listeners {
    /// Opens what `config` asks for and is not open yet. Dropped, a socket opened here is removed.
    /// Errors: as [`NbdServer::start`]; what was open stays so for its other holders.
    pub fn complete(mut self, config: &NbdConfig) -> Result<Listeners, StartError> {
        if let (Some(address), None) = (&config.address, &self.tcp) {
            self.tcp = Some(bind::tcp(address)?);
        }
        if let (Some(path), None) = (&config.socket, &self.unix) {
            let (listener, file) = bind::unix(path, config.socket_mode)?;
            (self.unix, self.file) = (Some(listener), Some(file));
        }
        Ok(self)
    }
}
