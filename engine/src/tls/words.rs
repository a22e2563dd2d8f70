//! What went wrong in a handshake between nodes, in words that both sides understand.

use rustls::{AlertDescription as Alert, CertificateError, Error};

/// The alert that a node without TLS answers to one that begins with it: fatal,
/// insufficient_security. Source: RFC 8446, 5.1 and 6.
pub(crate) const NO_TLS_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 71];

/// Why TLS did not come up, said of the other side.
pub(crate) fn words_of(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => alert_words(*alert),
        Error::InvalidCertificate(why) => certificate_words(why),
        Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        error => format!("TLS: {error}"),
    }
}

fn certificate_words(why: &CertificateError) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    match why {
        Expired | ExpiredContext { .. } => "its certificate has expired".to_owned(),
        NotValidYet | NotValidYetContext { .. } => "its certificate is not in force yet".to_owned(),
        UnknownIssuer => "its certificate is of an authority that is not known here".to_owned(),
        // Says it all by itself.
        Other(other) => other.0.to_string(),
        why => format!("its certificate is refused: {why}"),
    }
}

/// What the other side means; the counterpart of [`certificate_words`].
fn alert_words(alert: Alert) -> String {
    match alert {
        Alert::CertificateExpired => {
            "it says that our certificate has expired, or is not in force yet".to_owned()
        }
        Alert::UnknownCA => "it does not know the authority of our certificate".to_owned(),
        Alert::CertificateUnknown => {
            "it says that our certificate is not that of the node it dials".to_owned()
        }
        Alert::CertificateRequired => "it asks for a certificate".to_owned(),
        Alert::InsufficientSecurity => "it has no TLS for replication".to_owned(),
        alert => format!("it refuses TLS: {alert:?}"),
    }
}
