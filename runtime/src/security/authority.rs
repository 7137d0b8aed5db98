use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

use super::credentials::{CA_CERTIFICATE, Credentials, Pem};
use super::names::{self, Identity, NODE_NAME_LEN_BYTES};
use super::{SecurityError, files};

/// The file of an authority's private key.
const CA_KEY: &str = "ca.key";

/// A cluster's certificate authority: it vouches for who plays which role.
pub struct Authority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// When the operating system gives no randomness for its key.
    pub fn create(cluster: ClusterId) -> Result<Self, SecurityError> {
        let failed = |error: rcgen::Error| issue_failed(&format!("the authority of cluster {cluster}"), &error);
        let mut params = CertificateParams::new([names::cluster_name(cluster)]).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, format!("Situ cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Ok(Self { cluster, certificate: der, certificate_pem: pem, issuer: Issuer::new(params, key) })
    }

    /// The authority that [`Authority::save`] left in a directory.
    ///
    /// # Errors
    /// When a file is missing, damaged, or open to others.
    pub fn load(directory: &Path) -> Result<Self, SecurityError> {
        let (certificate_path, key_path) = (directory.join(CA_CERTIFICATE), directory.join(CA_KEY));
        let certificate = files::read_certificates(&certificate_path)?.swap_remove(0);
        let expected = "the certificate of a cluster's authority";
        let malformed = |reason| files::malformed(&certificate_path, expected, reason);
        let cluster = names::cluster_of(&certificate).map_err(malformed)?;
        let key = files::read_key(&key_path)?;
        let key =
            KeyPair::try_from(&key).map_err(|error| files::malformed(&key_path, "a private key", error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| malformed(error.to_string()))?;
        let certificate_pem = files::read_text(&certificate_path)?;
        let authority = Self { cluster, certificate, certificate_pem, issuer };
        // What does not belong together shows only when somebody is asked to trust it.
        let trial = authority.issue(&[Role::User], "trial")?;
        trial.check_chain().map_err(|reason| SecurityError::Mismatch {
            path: key_path,
            other: certificate_path,
            reason,
        })?;
        Ok(authority)
    }

    /// Writes `ca.pem` and `ca.key` into a directory, readable by their owner alone.
    ///
    /// # Errors
    /// When there is an authority already, or the files cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), SecurityError> {
        files::create_directory(directory)?;
        files::write_new(&directory.join(CA_KEY), &self.issuer.key().serialize_pem())?;
        files::write_new(&directory.join(CA_CERTIFICATE), &self.certificate_pem)
    }

    /// The cluster that it is for.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Vouches that the holder of a new key is called `name` and may play `roles`.
    ///
    /// # Errors
    /// When the name is empty or too long, or no key can be made.
    pub fn issue(&self, roles: &[Role], name: &str) -> Result<Credentials, SecurityError> {
        if name.is_empty() || name.len() > NODE_NAME_LEN_BYTES {
            return Err(SecurityError::Name {
                name: name.to_owned(),
                found_bytes: name.len(),
                limit_bytes: NODE_NAME_LEN_BYTES,
            });
        }
        let failed = |error: rcgen::Error| issue_failed(name, &error);
        let identity = Identity { roles: roles.to_vec(), name: name.to_owned() };
        let mut params = CertificateParams::new(identity.to_dns_names()).map_err(failed)?;
        // A common name has at most 64 characters; it is for people to read, the DNS names count.
        params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let pem =
            Pem { authority: self.certificate_pem.clone(), certificate: certificate.pem(), key: key.serialize_pem() };
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Credentials::new(self.cluster, identity, self.certificate.clone(), chain, key, pem))
    }
}

/// Certificates do not run out yet: a cluster that stops on a certain day is worse than one whose keys are renewed by
/// hand.
fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
}

fn issue_failed(subject: &str, error: &rcgen::Error) -> SecurityError {
    SecurityError::Issue { subject: subject.to_owned(), reason: error.to_string() }
}
