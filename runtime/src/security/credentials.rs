use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::names::{self, Identity};
use super::{SecurityError, files};

/// The file of the authority's certificate.
pub(super) const CA_CERTIFICATE: &str = "ca.pem";
/// The file of the process's own certificate.
const CERTIFICATE: &str = "node.pem";
/// The file of the process's private key.
const KEY: &str = "node.key";

/// How a process proves who it is, and whom it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    identity: Identity,
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: Pem,
}

/// The three files as text.
#[derive(Clone)]
pub(super) struct Pem {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("cluster", &self.shared.cluster)
            .field("identity", &self.shared.identity)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn new(
        cluster: ClusterId,
        identity: Identity,
        authority: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        pem: Pem,
    ) -> Self {
        Self { shared: Arc::new(Shared { cluster, identity, authority, chain, key, pem }) }
    }

    /// The credentials that [`Credentials::save`] left in a directory.
    ///
    /// # Errors
    /// When a file is missing or damaged, the key is open to others, or the files do not belong together.
    pub fn load(directory: &Path) -> Result<Self, SecurityError> {
        let paths = [CA_CERTIFICATE, CERTIFICATE, KEY].map(|name| directory.join(name));
        let [authority_path, certificate_path, key_path] = &paths;
        let authority = files::read_certificates(authority_path)?.swap_remove(0);
        let cluster = names::cluster_of(&authority)
            .map_err(|reason| files::malformed(authority_path, "the certificate of a cluster's authority", reason))?;
        let chain = files::read_certificates(certificate_path)?;
        let identity = Identity::from_certificate(&chain[0])
            .map_err(|reason| files::malformed(certificate_path, "the certificate of a node or user", reason))?;
        let key = files::read_key(key_path)?;
        let pem = Pem {
            authority: files::read_text(authority_path)?,
            certificate: files::read_text(certificate_path)?,
            key: files::read_text(key_path)?,
        };
        let credentials = Self::new(cluster, identity, authority, chain, key, pem);
        let mismatch = |path: &Path, other: &Path, reason| SecurityError::Mismatch {
            path: path.to_owned(),
            other: other.to_owned(),
            reason,
        };
        credentials.check_chain().map_err(|reason| mismatch(certificate_path, authority_path, reason))?;
        credentials.check_key().map_err(|reason| mismatch(key_path, certificate_path, reason))?;
        Ok(credentials)
    }

    /// Writes `ca.pem`, `node.pem` and `node.key` into a directory, readable by their owner alone. A `ca.pem` that is
    /// there already (beside its authority's key) must be the same.
    ///
    /// # Errors
    /// When there are credentials already, or the files cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), SecurityError> {
        files::create_directory(directory)?;
        let pem = &self.shared.pem;
        files::write_new(&directory.join(KEY), &pem.key)?;
        files::write_new(&directory.join(CERTIFICATE), &pem.certificate)?;
        let authority_path = directory.join(CA_CERTIFICATE);
        match files::write_new(&authority_path, &pem.authority) {
            Err(SecurityError::Exists { .. })
                if files::read_certificates(&authority_path)?.first() == Some(&self.shared.authority) =>
            {
                Ok(())
            }
            written => written,
        }
    }

    /// The cluster whose authority vouches.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// The roles that the holder may play.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.shared.identity.roles
    }

    /// The holder's name: a node's or a user's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.identity.name
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.shared.authority
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.shared.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.shared.key.clone_key()
    }

    /// Whether the authority vouches for the certificate.
    pub(super) fn check_chain(&self) -> Result<(), String> {
        let text = |error: webpki::Error| error.to_string();
        let anchor = anchor_from_trusted_cert(&self.shared.authority).map_err(text)?;
        let (certificate, intermediates) = self.shared.chain.split_first().ok_or("it is empty")?;
        EndEntityCert::try_from(certificate)
            .map_err(text)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[anchor],
                intermediates,
                UnixTime::now(),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(text)?;
        Ok(())
    }

    /// Whether the key is the certificate's.
    pub(super) fn check_key(&self) -> Result<(), String> {
        CertifiedKey::from_der(self.chain(), self.key(), &ring::default_provider())
            .map_err(|error| error.to_string())
            .map(drop)
    }
}

/// Who trusts the same authority, and claims to be somebody whom the authority never vouched for.
#[cfg(test)]
pub(super) fn impostor(credentials: &Credentials) -> Credentials {
    let Credentials { shared } = credentials;
    let other = super::Authority::create(shared.cluster).expect("there is randomness");
    let forged = other.issue(&shared.identity.roles, &shared.identity.name).expect("the name was fine before");
    let (chain, key) = (forged.chain(), forged.key());
    Credentials::new(shared.cluster, shared.identity.clone(), shared.authority.clone(), chain, key, shared.pem.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::Authority;
    use super::*;

    const CLUSTER: ClusterId = ClusterId(0xABCD);

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let (ca, node) = (directory.path().join("ca"), directory.path().join("node"));
        Authority::create(CLUSTER).unwrap().save(&ca).unwrap();
        let authority = Authority::load(&ca).unwrap();
        assert_eq!(authority.cluster(), CLUSTER);
        authority.issue(&[Role::Datanode, Role::Executor], "Knoten 1/ß").unwrap().save(&node).unwrap();
        let credentials = Credentials::load(&node).unwrap();
        assert_eq!(credentials.cluster(), CLUSTER);
        assert_eq!(credentials.roles(), [Role::Datanode, Role::Executor]);
        assert_eq!(credentials.name(), "Knoten 1/ß");
        for file in [ca.join("ca.key"), node.join(KEY)] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_authority_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::create(CLUSTER).unwrap();
        first.save(directory.path()).unwrap();
        let second = Authority::create(CLUSTER).unwrap();
        assert!(matches!(second.save(directory.path()), Err(SecurityError::Exists { .. })));
        first.issue(&[Role::User], "ann").unwrap().save(directory.path()).unwrap();
        assert_eq!(Authority::load(directory.path()).unwrap().cluster(), CLUSTER);
    }

    #[test]
    fn damaged_mixed_and_exposed_files_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let node = |name: &str| {
            let path = directory.path().join(name);
            Authority::create(CLUSTER).unwrap().issue(&[Role::User], name).unwrap().save(&path).unwrap();
            path
        };
        let missing = Credentials::load(directory.path()).unwrap_err();
        assert!(matches!(&missing, SecurityError::File { path, .. } if path.ends_with(CA_CERTIFICATE)), "{missing}");

        let (one, other) = (node("one"), node("other"));
        fs::copy(other.join(KEY), one.join(KEY)).unwrap();
        let mixed = Credentials::load(&one).unwrap_err();
        assert!(matches!(&mixed, SecurityError::Mismatch { path, .. } if path.ends_with(KEY)), "{mixed}");

        fs::copy(other.join(CERTIFICATE), one.join(CERTIFICATE)).unwrap();
        let foreign = Credentials::load(&one).unwrap_err();
        assert!(matches!(&foreign, SecurityError::Mismatch { path, .. } if path.ends_with(CERTIFICATE)), "{foreign}");

        fs::set_permissions(other.join(KEY), fs::Permissions::from_mode(0o644)).unwrap();
        let exposed = Credentials::load(&other).unwrap_err();
        assert!(matches!(exposed, SecurityError::Exposed { mode: 0o644, .. }), "{exposed}");

        fs::write(other.join(CERTIFICATE), "rubbish").unwrap();
        let damaged = Credentials::load(&other).unwrap_err();
        assert!(matches!(&damaged, SecurityError::Malformed { path, .. } if path.ends_with(CERTIFICATE)), "{damaged}");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let authority = Authority::create(CLUSTER).unwrap();
        for name in ["", &"x".repeat(super::super::NODE_NAME_LEN_BYTES + 1)] {
            assert!(matches!(authority.issue(&[Role::User], name), Err(SecurityError::Name { .. })));
        }
    }
}
