use rustls_pki_types::{CertificateDer, ServerName};
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

/// The longest name of a node or user: its encoding has to fit into a DNS name.
pub const NODE_NAME_LEN_BYTES: usize = 128;

const CLUSTER_SUFFIX: &str = ".cluster.situ";
const NAME_SUFFIX: &str = ".name.situ";
const SUFFIX: &str = ".situ";
/// The most digits of a name in one label; DNS allows 63.
const LABEL_DIGITS: usize = 60;
/// Base32 as in RFC 4648, in the case that DNS names are compared in.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Who a certificate is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// The roles that it may play.
    pub(crate) roles: Vec<Role>,
    /// Its node's or user's name.
    pub(crate) name: String,
}

impl Identity {
    /// As the names of a certificate.
    pub(super) fn to_dns_names(&self) -> Vec<String> {
        let roles = self.roles.iter().map(|role| role_name(*role));
        roles.chain([format!("{}{NAME_SUFFIX}", encode(self.name.as_bytes()))]).collect()
    }

    /// From the names of a certificate; whether anyone vouches for them has been checked before.
    pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let names = dns_names(certificate)?;
        let mut identity = Self { roles: Vec::new(), name: String::new() };
        for name in &names {
            if let Some(encoded) = name.strip_suffix(NAME_SUFFIX) {
                identity.name = decode(encoded).ok_or_else(|| format!("it holds {name}, which encodes no name"))?;
            } else if let Some(role) = name.strip_suffix(SUFFIX).and_then(Role::from_name) {
                identity.roles.push(role);
            }
        }
        if identity.roles.is_empty() || identity.name.is_empty() {
            return Err(format!("it names no role or nobody: {}", names.join(", ")));
        }
        Ok(identity)
    }
}

/// What a client that looks for `role` asks the server's certificate for.
pub(crate) fn server_name(role: Role) -> String {
    role_name(role)
}

/// The cluster's name in its authority's certificate.
pub(super) fn cluster_name(cluster: ClusterId) -> String {
    format!("{cluster}{CLUSTER_SUFFIX}")
}

/// The cluster that an authority's certificate is for.
pub(super) fn cluster_of(certificate: &CertificateDer<'_>) -> Result<ClusterId, String> {
    let names = dns_names(certificate)?;
    let cluster = names.iter().find_map(|name| name.strip_suffix(CLUSTER_SUFFIX)?.parse().ok());
    cluster.ok_or_else(|| "it is not a certificate of a Situ cluster's authority".to_owned())
}

fn role_name(role: Role) -> String {
    let name = format!("{role}{SUFFIX}");
    assert!(ServerName::try_from(name.as_str()).is_ok(), "every role's name can stand in a certificate");
    name
}

fn dns_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
    Ok(certificate.valid_dns_names().map(str::to_owned).collect())
}

fn encode(bytes: &[u8]) -> String {
    let mut digits = Vec::new();
    let (mut number, mut bits) = (0_u32, 0);
    for byte in bytes {
        number = (number << 8 | u32::from(*byte)) & 0xFFFF;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            digits.push(DIGITS[((number >> bits) & 31) as usize]);
        }
    }
    if bits > 0 {
        digits.push(DIGITS[((number << (5 - bits)) & 31) as usize]);
    }
    let labels: Vec<_> = digits.chunks(LABEL_DIGITS).map(String::from_utf8_lossy).collect();
    labels.join(".")
}

fn decode(digits: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let (mut number, mut bits) = (0_u32, 0);
    for digit in digits.bytes().filter(|byte| *byte != b'.') {
        let value = DIGITS.iter().position(|known| *known == digit.to_ascii_lowercase())?;
        number = (number << 5 | u32::try_from(value).ok()?) & 0xFFFF;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((number >> bits) & 0xFF).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives_its_encoding() {
        for name in ["a", "ab", "abc", "node-1.rack_2", "Zoë 🦀", &"x".repeat(NODE_NAME_LEN_BYTES)] {
            let encoded = encode(name.as_bytes());
            assert_eq!(decode(&encoded).as_deref(), Some(name), "{encoded}");
            let dns = format!("{encoded}{NAME_SUFFIX}");
            assert!(ServerName::try_from(dns.as_str()).is_ok(), "{dns}");
        }
    }

    #[test]
    fn the_encoding_is_base32() {
        assert_eq!(encode(b"foobar"), "mzxw6ytboi");
        assert_eq!(decode("mzxw6ytboi").as_deref(), Some("foobar"));
        assert_eq!(decode("mz1"), None);
    }
}
