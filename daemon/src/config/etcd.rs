//! `[etcd]`: what the file says of it, and what that means.

use std::path::PathBuf;

use engine::control::HAS_ETCD;

use super::endpoint::Endpoint;
use super::section::{Findings, Section};
use super::{At, Config, Diagnostic, Etcd, Quorum};

/// The table.
pub(super) fn etcd(mut section: Section<'_>, out: &mut Findings) -> Etcd {
    let span = section.span.clone();
    let endpoints = section.texts("endpoints", out);
    if endpoints.as_ref().is_none_or(|all| all.value.is_empty()) {
        let found = Diagnostic::error("E004", span.clone(), "`endpoints` is missing in [etcd]");
        out.push(found.label("as in endpoints = [\"https://etcd-1:2379\"]"));
    }
    let endpoints = endpoints.map(|all| all.value).unwrap_or_default();
    let mut path = |key: &'static str, section: &mut Section<'_>| {
        let text = section.text(key, out)?;
        let path = PathBuf::from(text.value);
        if !path.is_absolute() {
            let says = format!("`{key}` of [etcd] must be an absolute path");
            let found = Diagnostic::error("E005", text.span.clone(), says);
            out.push(found.label("it is the same on every node"));
        }
        Some(At::new(path, text.span))
    };
    let ca = path("ca", &mut section);
    let cert = path("cert", &mut section);
    let key = path("key", &mut section);
    section.finish(&[], out);
    Etcd {
        span,
        endpoints: endpoints
            .into_iter()
            .map(|text| At::new(text.value.to_owned(), text.span))
            .collect(),
        ca,
        cert,
        key,
    }
}

/// Adds what is wrong or risky in the choice of etcd.
pub(super) fn check(config: &Config, out: &mut Findings) {
    let control = config.cluster.control.as_ref();
    match (&config.etcd, control.filter(|_| config.is_etcd())) {
        (None, None) => {}
        (Some(etcd), None) => {
            let found = Diagnostic::error("E013", etcd.span.clone(), "[etcd] has no effect");
            let hint = "set control = \"etcd\" in [cluster], or remove the table";
            out.push(found.label("records are chosen by voters").hint(hint));
        }
        (None, Some(control)) => {
            let says = "the table [etcd] is missing";
            let found = Diagnostic::error("E004", control.span.clone(), says);
            let hint = "[etcd] endpoints = [\"https://etcd-1:2379\", …], ca, cert, key";
            out.push(found.label("this asks for it").hint(hint));
        }
        (Some(etcd), Some(_)) => {
            etcd.endpoints.iter().for_each(|at| endpoint(etcd, at, out));
            certificates(etcd, out);
        }
    }
    let Some(control) = control.filter(|_| config.is_etcd()) else {
        return;
    };
    if !HAS_ETCD {
        let says = "this program was built without etcd";
        let hint = "build it with `cargo build --release --features etcd`, which needs protoc; or \
                    let the volumes' own voters choose: control = \"voters\"";
        let found = Diagnostic::error("E240", control.span.clone(), says);
        out.push(found.label("it cannot ask etcd").hint(hint));
    }
    if let Some(off) = &config.cluster.quorum
        && off.value == Quorum::Off
    {
        let says = "`quorum` is off, and etcd is to choose records";
        let found = Diagnostic::error("E013", off.span.clone(), says);
        out.push(
            found
                .label("contradicts control = \"etcd\"")
                .hint("remove it"),
        );
    }
}

fn endpoint(etcd: &Etcd, at: &At<String>, out: &mut Findings) {
    let plain = at.strip_prefix("http://");
    let Some(rest) = plain.or_else(|| at.strip_prefix("https://")) else {
        let says = "an endpoint of [etcd] must be http://host:port or https://host:port";
        return out.push(Diagnostic::error("E005", at.span.clone(), says));
    };
    match Endpoint::parse(rest) {
        Err(why) => {
            let says = "an endpoint of [etcd] must be http://host:port or https://host:port";
            out.push(Diagnostic::error("E005", at.span.clone(), says).label(why));
        }
        Ok(endpoint) if plain.is_some() && !endpoint.is_loopback() => {
            let says = "etcd is asked without TLS, and is not on this machine";
            let hint = "use https:// with ca, cert and key: who can write to etcd decides which \
                        node serves";
            let found = Diagnostic::error("E241", at.span.clone(), says);
            out.push(found.label("anybody on the way can change it").hint(hint));
        }
        Ok(_) if plain.is_none() && etcd.ca.is_none() => {
            let says = "`ca` is missing in [etcd]";
            let found = Diagnostic::error("E004", etcd.span.clone(), says);
            out.push(found.label("whose certificates are trusted?"));
        }
        Ok(_) => {}
    }
}

fn certificates(etcd: &Etcd, out: &mut Findings) {
    let (there, missing) = match (&etcd.cert, &etcd.key) {
        (Some(cert), None) => (cert, "key"),
        (None, Some(key)) => (key, "cert"),
        _ => return,
    };
    let says = format!("`{missing}` is missing in [etcd]");
    let found = Diagnostic::error("E004", there.span.clone(), says);
    out.push(found.label("certificate and key go together"));
}
