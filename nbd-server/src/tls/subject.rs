//! Whom a client's certificate names, and the rules that let such clients attach.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Attributes a rule can ask for: of the subject's name, and of its alternative names.
const KEYS: [&str; 9] = ["CN", "O", "OU", "C", "L", "ST", "DNS", "IP", "URI"];

/// Whom a certificate names: its subject, then its alternative names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    attributes: Vec<(String, String)>,
}

/// What a client's certificate must name: every attribute of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRule {
    attributes: Vec<(String, String)>,
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongSubject {
    /// There is no `=`, or nothing on one of its sides.
    #[error("`{0}` is not an attribute such as CN=hyper1")]
    Attribute(String),
    /// No certificate is asked for this.
    #[error("`{0}` is not one of CN, O, OU, C, L, ST, DNS, IP and URI")]
    Key(String),
    /// An address that is none.
    #[error("`{0}` is not an IP address")]
    Address(String),
}

impl Subject {
    /// Whom the certificate names. What cannot be read names nobody.
    pub fn of_certificate(der: &[u8]) -> Subject {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Subject::default();
        };
        let mut attributes = Vec::new();
        for attribute in certificate.subject().iter_attributes() {
            let key = oid2abbrev(attribute.attr_type(), oid_registry());
            if let (Ok(key), Ok(value)) = (key, attribute.as_str()) {
                attributes.push((key.to_owned(), value.to_owned()));
            }
        }
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            let (key, value) = match name {
                GeneralName::DNSName(name) => ("DNS", (*name).to_owned()),
                GeneralName::URI(uri) => ("URI", (*uri).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => ("IP", address.to_string()),
                    None => continue,
                },
                _ => continue,
            };
            attributes.push((key.to_owned(), value));
        }
        Subject { attributes }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

impl fmt::Display for Subject {
    /// `CN=hyper1,O=Example,DNS=hyper1.example`, in the certificate's order. Nothing in it can
    /// change a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.attributes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}=")?;
            for char in value.chars() {
                match char {
                    ',' | '\\' => write!(f, "\\{char}")?,
                    char if char.is_control() => write!(f, "{}", char.escape_unicode())?,
                    char => write!(f, "{char}")?,
                }
            }
        }
        Ok(())
    }
}

impl SubjectRule {
    /// The subject has every attribute of the rule. DNS names are compared without case.
    pub fn admits(&self, subject: &Subject) -> bool {
        let is_same = |(key, value): &(String, String), (k, v): &(String, String)| {
            key == k
                && match key.as_str() {
                    "DNS" => value.eq_ignore_ascii_case(v),
                    _ => value == v,
                }
        };
        self.attributes
            .iter()
            .all(|wanted| subject.attributes.iter().any(|has| is_same(wanted, has)))
    }
}

impl FromStr for SubjectRule {
    type Err = WrongSubject;

    /// Attributes with commas between them; `\,` is a comma within a value, `\\` a backslash.
    fn from_str(text: &str) -> Result<SubjectRule, WrongSubject> {
        let mut attributes = Vec::new();
        for part in split(text) {
            let wrong = || WrongSubject::Attribute(part.clone());
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let (key, value) = (key.trim(), value.trim());
            if key.is_empty() || value.is_empty() {
                return Err(wrong());
            }
            if !KEYS.contains(&key) {
                return Err(WrongSubject::Key(key.to_owned()));
            }
            let value = match key {
                "IP" => value
                    .parse::<IpAddr>()
                    .map_err(|_| WrongSubject::Address(value.to_owned()))?
                    .to_string(),
                _ => value.to_owned(),
            };
            attributes.push((key.to_owned(), value));
        }
        Ok(SubjectRule { attributes })
    }
}

/// The parts between commas that are not escaped; never empty.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let last = parts.last_mut().expect("there is one from the start");
        match char {
            '\\' => last.extend(chars.next()),
            ',' => parts.push(String::new()),
            char => last.push(char),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn rule(text: &str) -> SubjectRule {
        text.parse().unwrap()
    }

    fn hyper1() -> Subject {
        let names = ["hyper1.example".to_owned(), "10.0.0.7".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "hyper1");
        name.push(DnType::OrganizationName, "Example, Ltd");
        let uri = "spiffe://example/hyper1".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate().unwrap();
        Subject::of_certificate(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_certificate_names_its_subject_and_its_alternative_names() {
        assert_eq!(
            hyper1().to_string(),
            "CN=hyper1,O=Example\\, Ltd,DNS=hyper1.example,IP=10.0.0.7,\
             URI=spiffe://example/hyper1"
        );
        assert_eq!(Subject::of_certificate(b"junk"), Subject::default());
    }

    #[test]
    fn a_rule_admits_whoever_has_all_of_it() {
        let hyper1 = hyper1();
        for text in [
            "CN=hyper1",
            "O=Example\\, Ltd,CN=hyper1",
            " CN = hyper1 ",
            "DNS=HYPER1.example",
            "IP=10.0.0.7",
            "URI=spiffe://example/hyper1",
        ] {
            assert!(rule(text).admits(&hyper1), "{text}");
        }
        for text in [
            "CN=hyper",
            "CN=HYPER1",
            "CN=hyper1,O=Other",
            "DNS=example",
            "OU=hyper1",
        ] {
            assert!(!rule(text).admits(&hyper1), "{text}");
        }
        assert!(!rule("CN=hyper1").admits(&Subject::default()));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        let error = |text: &str| text.parse::<SubjectRule>().unwrap_err().to_string();
        let plain = |part: &str| format!("`{part}` is not an attribute such as CN=hyper1");
        assert_eq!(error("hyper1"), plain("hyper1"));
        assert_eq!(error(""), plain(""));
        assert_eq!(error("CN="), plain("CN="));
        assert_eq!(error("CN=a,"), plain(""));
        assert_eq!(
            error("cn=a"),
            "`cn` is not one of CN, O, OU, C, L, ST, DNS, IP and URI"
        );
        assert_eq!(error("IP=10.0.0"), "`10.0.0` is not an IP address");
    }

    #[test]
    fn what_is_shown_cannot_change_a_terminal() {
        let subject = Subject {
            attributes: vec![("CN".to_owned(), "a\u{1b}[2Jb".to_owned())],
        };
        assert_eq!(subject.to_string(), "CN=a\\u{1b}[2Jb");
    }
}
