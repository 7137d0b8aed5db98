//! The `VERSION` file of a volume.

use std::fmt::Write as _;
use std::str::FromStr;

use situ_wire::ids::{ClusterId, DatanodeId, StorageId};

/// Whose volume it is. Written once, when the volume is formatted.
///
/// ```text
/// situ volume 1
/// cluster <32 hexadecimal digits>
/// datanode <32 hexadecimal digits>
/// storage <32 hexadecimal digits>
/// crc32c <8 hexadecimal digits, over all lines before>
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeVersion {
    /// The cluster that its replicas belong to.
    pub cluster: ClusterId,
    /// The datanode that it belongs to.
    pub datanode: DatanodeId,
    /// Which volume it is.
    pub storage: StorageId,
}

/// Why a `VERSION` file is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is not one.
    #[error("it does not begin with {FIRST_LINE:?}; this is not a volume of a datanode")]
    NotAVolume,
    /// It is from another release.
    #[error("the layout is version {found}, this program knows version 1; run the release that wrote it")]
    UnknownLayout {
        /// The version that it names.
        found: String,
    },
    /// It was changed or damaged.
    #[error("it is damaged: {reason}; the ids in it cannot be trusted")]
    Damaged {
        /// What does not fit.
        reason: &'static str,
    },
}

impl VolumeVersion {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text =
            format!("{FIRST_LINE}1\ncluster {}\ndatanode {}\nstorage {}\n", self.cluster, self.datanode, self.storage);
        let sum = crc32c::crc32c(text.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "crc32c {sum:08x}");
        text.into_bytes()
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are not exactly what [`VolumeVersion::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, VersionError> {
        let text = std::str::from_utf8(bytes).map_err(|_| VersionError::NotAVolume)?;
        let mut lines = text.lines();
        let layout = lines.next().and_then(|line| line.strip_prefix(FIRST_LINE)).ok_or(VersionError::NotAVolume)?;
        if layout != "1" {
            return Err(VersionError::UnknownLayout { found: layout.chars().take(20).collect() });
        }
        let version = Self {
            cluster: field(lines.next(), "cluster ", "the line `cluster`")?,
            datanode: field(lines.next(), "datanode ", "the line `datanode`")?,
            storage: field(lines.next(), "storage ", "the line `storage`")?,
        };
        if version.encode() != bytes {
            return Err(VersionError::Damaged { reason: "its checksum" });
        }
        Ok(version)
    }
}

fn field<T: FromStr>(line: Option<&str>, name: &str, reason: &'static str) -> Result<T, VersionError> {
    line.and_then(|line| line.strip_prefix(name))
        .and_then(|value| value.parse().ok())
        .ok_or(VersionError::Damaged { reason })
}

/// What the file is called.
pub(super) const VERSION: &str = "VERSION";
/// No such file is longer.
pub(super) const VERSION_LIMIT_BYTES: u64 = 4096;
const FIRST_LINE: &str = "situ volume ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_stays() {
        let version = VolumeVersion { cluster: ClusterId(0xc1), datanode: DatanodeId(0xd2), storage: StorageId(0xe3) };
        let golden = "situ volume 1\n\
                      cluster 000000000000000000000000000000c1\n\
                      datanode 000000000000000000000000000000d2\n\
                      storage 000000000000000000000000000000e3\n\
                      crc32c acf69b80\n";
        assert_eq!(String::from_utf8(version.encode()).unwrap(), golden);
        assert_eq!(VolumeVersion::decode(golden.as_bytes()), Ok(version));
        assert_eq!(
            VolumeVersion::decode(golden.replace("00c1", "00c2").as_bytes()),
            Err(VersionError::Damaged { reason: "its checksum" })
        );
        assert_eq!(
            VolumeVersion::decode(golden.replace("volume 1", "volume 2").as_bytes()),
            Err(VersionError::UnknownLayout { found: "2".to_owned() })
        );
        assert_eq!(VolumeVersion::decode(b"junk"), Err(VersionError::NotAVolume));
        assert_eq!(
            VolumeVersion::decode(b"situ volume 1\n"),
            Err(VersionError::Damaged { reason: "the line `cluster`" })
        );
    }
}
