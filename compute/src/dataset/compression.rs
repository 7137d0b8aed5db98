//! Compressed input: told by the endings of names, decoded as it is read.
//!
//! | ending | format |
//! |---|---|
//! | `.gz` | gzip, with any number of members, and zeros behind the last one, as blocks of tapes leave them |
//! | `.zst` | Zstandard, with any number of frames, and windows of at most a task's share of the memory, or 8 MiB |
//! | `.bz2` | bzip2, with any number of streams |
//! | `.lz4` | LZ4 frames, as the `lz4` command writes them |
//!
//! A decoder holds a window and no more: how much comes out of a file does not matter. Windows are of a known size, but for
//! Zstandard's, which a frame asks for.

use std::io::{self, BufRead, Cursor, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use situ_wire::path::DfsPath;

/// A format that is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Codec {
    Gzip,
    Zstd,
    Bzip2,
    Lz4,
}

/// Formats by their endings.
const DECODED: [(&str, Codec); 4] =
    [(".gz", Codec::Gzip), (".zst", Codec::Zstd), (".bz2", Codec::Bzip2), (".lz4", Codec::Lz4)];

/// What is not decoded, and must not be taken for text.
const REFUSED: [(&str, &str); 17] = [
    (".snappy", "compressed with Snappy"),
    (".xz", "compressed with xz"),
    (".lzma", "compressed with LZMA"),
    (".lzo", "compressed with LZO"),
    (".lzo_deflate", "compressed with LZO"),
    (".deflate", "compressed with zlib"),
    (".z", "compressed with compress or pack"),
    (".br", "compressed with Brotli"),
    (".lz", "compressed with lzip"),
    (".zip", "a ZIP archive"),
    (".7z", "a 7z archive"),
    (".rar", "a RAR archive"),
    (".tar", "a tar archive"),
    (".tgz", "a tar archive"),
    (".tbz2", "a tar archive"),
    (".txz", "a tar archive"),
    (".tzst", "a tar archive"),
];

/// How the content of formats begins that have no place in a text, and what they are called.
const BEGINNINGS: [(&[u8], &str); 5] = [
    (&[0x1f, 0x8b, 0x08], "gzip; it should end in .gz"),
    (&ZSTD, "Zstandard; it should end in .zst"),
    (&LZ4, "LZ4; it should end in .lz4"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz, which is not decoded here"),
    (&[b'P', b'K', 3, 4], "a ZIP archive, which is not unpacked here"),
];

/// The largest window of Zstandard that is decoded however little memory there is: what each decoder shall take, as its
/// specification says, and what the levels up to 19 of the `zstd` command use.
const ZSTD_WINDOW_LEN_BYTES: u64 = 8 << 20;

const ZSTD: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
const LZ4: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// What decodes the file at `path`; none for text as it is.
///
/// # Errors
/// Says what the file is, if its ending says that it is something else.
pub(super) fn codec_of(path: &DfsPath) -> Result<Option<Codec>, String> {
    let name = path.name().to_ascii_lowercase();
    let decoded = DECODED.iter().find_map(|(ending, codec)| Some((name.strip_suffix(ending)?, *codec)));
    let (stem, codec) = decoded.map_or((name.as_str(), None), |(stem, codec)| (stem, Some(codec)));
    match REFUSED.iter().find(|(ending, _)| stem.ends_with(ending)) {
        None => Ok(codec),
        Some((_, what)) => Err(format!(
            "{path} is {what}, as its name says, and would not be read as what it holds; store it unpacked, or compressed \
             as .gz, .zst, .bz2 or .lz4; if it is text all the same, have it read as it is, whatever its name: --plain (in \
             a program, TextOptions::plain)"
        )),
    }
}

/// What a file is whose name says that it is text and whose content begins as something else.
pub(super) fn disguised(beginning: &[u8]) -> Option<&'static str> {
    // Behind three letters and a digit, which may be a text's, the first digits of pi.
    if beginning.starts_with(b"BZh") && beginning.get(4..10) == Some(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) {
        return Some("bzip2; it should end in .bz2");
    }
    BEGINNINGS.iter().find(|(begins, _)| beginning.starts_with(begins)).map(|(_, what)| *what)
}

impl Codec {
    /// Its name, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "Zstandard",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "LZ4",
        }
    }

    fn begins(self, beginning: &[u8]) -> bool {
        match self {
            Self::Gzip => beginning.starts_with(&[0x1f, 0x8b]),
            Self::Bzip2 => beginning.starts_with(b"BZh"),
            Self::Lz4 => beginning == LZ4,
            // Or with a frame that is to be skipped.
            Self::Zstd => {
                beginning == ZSTD || (beginning.ends_with(&[0x2a, 0x4d, 0x18]) && beginning[0] & 0xf0 == 0x50)
            }
        }
    }

    /// Decodes `source`, with about `memory_bytes` at most.
    ///
    /// # Errors
    /// When it does not begin as it should.
    pub(super) fn decode<B: BufRead + 'static>(self, mut source: B, memory_bytes: u64) -> io::Result<Box<dyn Read>> {
        let mut beginning = Vec::new();
        source.by_ref().take(4).read_to_end(&mut beginning)?;
        if !self.begins(&beginning) {
            let found = match &beginning[..] {
                [] => {
                    return Err(io::Error::other("it is empty: even a file of nothing has a beginning in this format"));
                }
                bytes => format!("it begins with \"{}\"", bytes.escape_ascii()),
            };
            let hadoop = if self == Self::Lz4 { "; blocks as Hadoop writes them are not LZ4 frames" } else { "" };
            return Err(io::Error::other(format!("{found}, as no file of this format does{hadoop}")));
        }
        let source = Cursor::new(beginning).chain(source);
        Ok(match self {
            Self::Gzip => {
                Box::new(GzipMembers { decoder: Some(flate2::bufread::GzDecoder::new(source)), has_ended: false })
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
            Self::Zstd => {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(memory_bytes.max(ZSTD_WINDOW_LEN_BYTES));
                Box::new(ZstdFrames { source, decoder, is_within: false, len_bytes: 0 })
            }
            Self::Lz4 => {
                let source = Noting { source, has_ended: false };
                Box::new(Lz4Frames { decoder: Some(lz4_flex::frame::FrameDecoder::new(source)) })
            }
        })
    }
}

/// Members of gzip, one behind the other, and any number of zeros behind them.
struct GzipMembers<B: BufRead> {
    /// The one of the member that is read, or was last: the source stays open.
    decoder: Option<flate2::bufread::GzDecoder<B>>,
    has_ended: bool,
}

impl<B: BufRead> GzipMembers<B> {
    /// Behind a member: whether another one follows.
    fn follows(source: &mut B) -> io::Result<bool> {
        let mut zeros = 0_u64;
        loop {
            let bytes = source.fill_buf()?;
            match bytes.first() {
                None => return Ok(false),
                Some(0) => {
                    let len = bytes.iter().take_while(|byte| **byte == 0).count();
                    zeros += len as u64;
                    source.consume(len);
                }
                Some(_) if zeros == 0 => return Ok(true),
                Some(_) => {
                    let error = format!("behind its last member and {zeros} zeros there is something else");
                    return Err(io::Error::other(error));
                }
            }
        }
    }
}

impl<B: BufRead> Read for GzipMembers<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = self.decoder.as_mut().filter(|_| !self.has_ended) {
            let len = decoder.read(buffer)?;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            if Self::follows(decoder.get_mut())? {
                self.decoder = self.decoder.take().map(|it| flate2::bufread::GzDecoder::new(it.into_inner()));
            } else {
                self.has_ended = true;
            }
        }
        Ok(0)
    }
}

/// Frames of Zstandard, one behind the other.
struct ZstdFrames<B> {
    source: B,
    decoder: FrameDecoder,
    /// Whether a frame has begun and not ended.
    is_within: bool,
    /// How much has come out of it.
    len_bytes: u64,
}

impl<B: BufRead> ZstdFrames<B> {
    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    (self.is_within, self.len_bytes) = (true, 0);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                    return Err(io::Error::other(format!(
                        "a frame asks for a window of {requested} bytes, over the {max} bytes of memory that a task may use \
                         for it; raise worker_memory_bytes of the executors, or compress it again without --long and --ultra"
                    )));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    /// Ends a frame that has been read.
    fn end(&mut self) -> io::Result<()> {
        self.is_within = false;
        // Zero where the frame does not say.
        let said = self.decoder.content_size();
        if said > 0 && said != self.len_bytes {
            return Err(io::Error::other(format!("a frame of {said} bytes, as it says, has {}", self.len_bytes)));
        }
        let (written, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if written.is_some() && written != found {
            return Err(io::Error::other("the checksum of a frame is not that of its content"));
        }
        Ok(())
    }
}

impl<B: BufRead> Read for ZstdFrames<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_within && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, blocks).map_err(io::Error::other)?;
            }
            let len = self.decoder.read(buffer)?;
            self.len_bytes += len as u64;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            self.end()?;
        }
    }
}

/// Frames of LZ4, one behind the other.
struct Lz4Frames<B: BufRead> {
    /// The one of the frame that is read: a decoder keeps its room, which is not that of another frame. None at the end.
    decoder: Option<lz4_flex::frame::FrameDecoder<Noting<B>>>,
}

impl<B: BufRead> Read for Lz4Frames<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut decoder) = self.decoder.take() {
            let read = decoder.read(buffer);
            // Back as well after an error, which may be an interruption, or asked for again.
            if !matches!(read, Ok(0)) || buffer.is_empty() {
                self.decoder = Some(decoder);
                return read;
            }
            let mut source = decoder.into_inner();
            // The decoder takes the end of the file within a frame for the end of the frame.
            if source.has_ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !source.source.fill_buf()?.is_empty() {
                self.decoder = Some(lz4_flex::frame::FrameDecoder::new(source));
            }
        }
        Ok(0)
    }
}

/// Notes when more was asked for than there is.
struct Noting<B> {
    source: B,
    has_ended: bool,
}

impl<B: Read> Read for Noting<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        self.has_ended |= len == 0 && !buffer.is_empty();
        Ok(len)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// One member, frame or stream with this content.
    pub(in crate::dataset) fn encode(codec: Codec, content: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zstd => ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest),
            Codec::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn decoded(codec: Codec, bytes: &[u8]) -> io::Result<Vec<u8>> {
        // Chunks are shorter than anything that is read at once.
        let source = io::BufReader::with_capacity(3, Cursor::new(bytes.to_vec()));
        let mut out = Vec::new();
        codec.decode(source, 0)?.read_to_end(&mut out)?;
        Ok(out)
    }

    /// A frame of Zstandard without a checksum, with one block as it is.
    fn zstd_frame(window: Option<u8>, says: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = ZSTD.to_vec();
        match window {
            // One segment, whose length is one byte.
            None => frame.extend([0x20, says]),
            Some(window) => frame.extend([0, window]),
        }
        let block = u32::try_from(content.len()).unwrap() << 3 | 1;
        frame.extend_from_slice(&block.to_le_bytes()[..3]);
        frame.extend_from_slice(content);
        frame
    }

    #[test]
    fn a_frame_has_the_length_that_it_says() {
        assert_eq!(decoded(Codec::Zstd, &zstd_frame(None, 4, b"text")).unwrap(), b"text");
        for says in [3, 5] {
            let error = decoded(Codec::Zstd, &zstd_frame(None, says, b"text")).unwrap_err().to_string();
            assert!(error.contains(&format!("a frame of {says} bytes")) || says < 4, "{error}");
        }
    }

    #[test]
    fn a_window_that_is_larger_than_the_memory_is_refused() {
        let decode = |window: u8, memory_bytes| {
            let source = io::BufReader::new(Cursor::new(zstd_frame(Some(window), 0, b"text")));
            let mut out = Vec::new();
            Codec::Zstd.decode(source, memory_bytes)?.read_to_end(&mut out)?;
            io::Result::Ok(out)
        };
        // 1 KiB times two to the upper five bits.
        assert_eq!(decode(13 << 3, 0).unwrap(), b"text", "8 MiB always");
        let error = decode(14 << 3, 0).unwrap_err().to_string();
        assert!(error.contains("a window of 16777216 bytes") && error.contains("worker_memory_bytes"), "{error}");
        assert_eq!(decode(14 << 3, 16 << 20).unwrap(), b"text");
    }

    #[test]
    fn after_an_error_lz4_is_not_at_its_end() {
        /// Is interrupted once.
        struct Interrupted(Cursor<Vec<u8>>, bool);
        impl Read for Interrupted {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if !std::mem::replace(&mut self.1, true) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.0.read(buffer)
            }
        }
        let bytes = encode(Codec::Lz4, b"text");
        let source = io::BufReader::new(
            Cursor::new(bytes[..4].to_vec()).chain(Interrupted(Cursor::new(bytes[4..].to_vec()), false)),
        );
        let mut decoder = Codec::Lz4.decode(source, 0).unwrap();
        assert!(decoder.read(&mut [0; 9]).is_err());
        assert!(!matches!(decoder.read(&mut [0; 9]), Ok(0)), "it has not ended");
    }

    const ALL: [Codec; 4] = [Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Lz4];

    #[test]
    fn all_parts_of_a_file_are_decoded() {
        let texts = ["one\n".repeat(50_000), String::new(), "two\nthree".to_owned()];
        for codec in ALL {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| encode(codec, text.as_bytes())).collect();
            assert_eq!(decoded(codec, &bytes).unwrap(), texts.concat().as_bytes(), "{codec:?}");
        }
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &encode(Codec::Zstd, b"text")].concat();
        assert_eq!(decoded(Codec::Zstd, &skipped).unwrap(), b"text");
    }

    #[test]
    fn zeros_behind_gzip_are_taken_for_padding_as_gzip_does() {
        let padded = |tail: &[u8]| [&encode(Codec::Gzip, b"one\n"), &encode(Codec::Gzip, b"two"), tail].concat();
        assert_eq!(decoded(Codec::Gzip, &padded(&[0; 20_000])).unwrap(), b"one\ntwo");
        let more = decoded(Codec::Gzip, &padded(&[&[0; 3][..], &encode(Codec::Gzip, b"lost")].concat()));
        assert!(more.unwrap_err().to_string().contains("3 zeros there is something else"));
        let error = decoded(Codec::Gzip, b"").unwrap_err().to_string();
        assert!(error.starts_with("it is empty"), "{error}");
    }

    #[test]
    fn what_is_cut_or_damaged_or_something_else_is_refused() {
        let text: Vec<u8> =
            (0..2_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).collect();
        for codec in ALL {
            let whole = encode(codec, &text);
            for len in (0..whole.len()).step_by(97).chain([0, 1, 4, 7, whole.len() - 1]) {
                assert!(decoded(codec, &whole[..len]).is_err(), "{codec:?} cut at {len} of {}", whole.len());
            }
            let mut damaged = whole.clone();
            let middle = whole.len() / 2;
            damaged[middle] ^= 0x10;
            assert!(decoded(codec, &damaged).is_err(), "{codec:?} with a bit flipped");
            assert!(decoded(codec, &[&whole[..], b"what is this"].concat()).is_err(), "{codec:?} and more");
            let error = decoded(codec, b"plain text\n").unwrap_err().to_string();
            assert!(error.contains("it begins with \"plai\""), "{codec:?}: {error}");
        }
        let hadoop = [&100_u32.to_be_bytes()[..], &20_u32.to_be_bytes(), &[7; 20]].concat();
        assert!(decoded(Codec::Lz4, &hadoop).unwrap_err().to_string().contains("as Hadoop writes them"));
    }

    #[test]
    fn endings_say_what_a_file_is() {
        let codec = |name: &str| codec_of(&DfsPath::root().join(name).unwrap());
        assert_eq!(codec("a.txt"), Ok(None));
        assert_eq!(codec("gz"), Ok(None));
        assert_eq!(codec("a.txt.gz"), Ok(Some(Codec::Gzip)));
        assert_eq!(codec("A.GZ"), Ok(Some(Codec::Gzip)));
        assert_eq!(codec("a.zst"), Ok(Some(Codec::Zstd)));
        for name in ["a.snappy", "a.xz", "a.Z", "a.zip", "a.br", "a.lzo", "a.tar.gz", "a.tgz"] {
            let error = codec(name).unwrap_err();
            assert!(error.starts_with(&format!("/{name} is ")) && error.contains("store it unpacked"), "{error}");
        }
        for codec in ALL {
            assert!(disguised(&encode(codec, b"text")).is_some_and(|what| what.contains("should end in")), "{codec:?}");
        }
        assert_eq!((disguised(b"BZhang"), disguised(b"")), (None, None));
    }
}
