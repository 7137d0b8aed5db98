//! Executables without what only a debugger needs.

use object::elf::{FileHeader64, SHF_ALLOC, SHT_NOBITS, SHT_NULL, SectionHeader64};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, pod};

/// The executable without its debug sections; none if it has none. The names of functions stay, for backtraces.
///
/// What is loaded of an executable comes first in its file and is left as it is. Of what follows only the debug sections go:
/// their headers stay, marked as unused, so that no section has another number than before. A file that goes on behind all of
/// that is not touched: a program may read there what was packed into it.
///
/// # Errors
/// Says why it cannot be taken apart, or why what came out is not trusted.
pub(super) fn without_debug_sections(executable: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let wrong = |error: object::read::Error| format!("it cannot be taken apart: {error}");
    let file = ElfFile64::<Endianness>::parse(executable).map_err(wrong)?;
    let (endian, table) = (file.endian(), file.elf_section_table());
    let is_loaded = |section: &SectionHeader64<Endianness>| section.sh_flags(endian).contains(SHF_ALLOC);
    let is_debug = |section: &SectionHeader64<Endianness>| {
        let name = table.section_name(endian, section).unwrap_or_default();
        let prefixes: [&[u8]; 3] = [b".debug_", b".zdebug_", b".rela.debug_"];
        !is_loaded(section)
            && section.sh_type(endian) != SHT_NULL
            && prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    if !table.iter().any(is_debug) {
        return Ok(None);
    }
    let described_len = described_len(&file);
    if described_len < executable.len() as u64 {
        let more = executable.len() as u64 - described_len;
        return Err(format!("it goes on for {more} bytes behind its sections, which it may need to be where they are"));
    }
    let segments = file.elf_program_headers().iter();
    let loaded_len = segments.map(|segment| segment.p_offset(endian).saturating_add(segment.p_filesz(endian))).max();
    let loaded_len = usize::try_from(loaded_len.unwrap_or(0)).map_err(|error| error.to_string())?;
    let mut stripped = executable.get(..loaded_len).ok_or("a segment ends behind its file")?.to_vec();
    let mut headers = Vec::new();
    for section in table.iter() {
        let mut header = *section;
        if is_debug(section) {
            header.sh_type.set(endian, SHT_NULL);
            header.sh_size.set(endian, 0);
        } else if !is_loaded(section) && !matches!(section.sh_type(endian), SHT_NULL | SHT_NOBITS) {
            align(&mut stripped, section.sh_addralign(endian));
            header.sh_offset.set(endian, stripped.len() as u64);
            stripped.extend_from_slice(section.data(endian, executable).map_err(wrong)?);
        }
        headers.push(header);
    }
    align(&mut stripped, align_of::<u64>() as u64);
    let mut header: FileHeader64<Endianness> = *file.elf_header();
    header.e_shoff.set(endian, stripped.len() as u64);
    headers.iter().for_each(|header| stripped.extend_from_slice(pod::bytes_of(header)));
    let header = pod::bytes_of(&header);
    stripped.get_mut(..header.len()).ok_or("no segment holds its header")?.copy_from_slice(header);
    if loaded(executable)? == loaded(&stripped)? {
        Ok(Some(stripped))
    } else {
        Err("without it what is loaded would not be the same".to_owned())
    }
}

/// Where the last of an executable's sections, segments and headers ends in its file.
fn described_len(file: &ElfFile64<'_, Endianness>) -> u64 {
    let (endian, header) = (file.endian(), file.elf_header());
    let table = |offset: u64, count: u16, size: u16| offset.saturating_add(u64::from(count) * u64::from(size));
    let sections = file.elf_section_table();
    let count = u64::try_from(sections.len()).unwrap_or(u64::MAX);
    let size = u64::from(header.e_shentsize(endian));
    let tables = [
        header.e_shoff(endian).saturating_add(count.saturating_mul(size)),
        table(header.e_phoff(endian), header.e_phnum(endian), header.e_phentsize(endian)),
    ];
    let content = sections.iter().filter_map(|section| section.file_range(endian));
    let segments = file.elf_program_headers().iter().map(|segment| segment.file_range(endian));
    content.chain(segments).map(|(offset, len)| offset.saturating_add(len)).chain(tables).max().unwrap_or(0)
}

/// Fills up with zeros to a multiple of `alignment`.
fn align(bytes: &mut Vec<u8>, alignment: u64) {
    let alignment = usize::try_from(alignment).unwrap_or(1).max(1);
    // No section asks for more than a page.
    bytes.resize(bytes.len().next_multiple_of(alignment.min(1 << 16)), 0);
}

/// What is loaded of an executable, and where it starts: all that counts when it runs.
fn loaded(executable: &[u8]) -> Result<(u64, Vec<Segment<'_>>), String> {
    let wrong = |error: object::read::Error| format!("it cannot be read: {error}");
    let file = ElfFile64::<Endianness>::parse(executable).map_err(wrong)?;
    let endian = file.endian();
    // The header at the beginning says where sections are, which is not asked when it runs.
    let header = pod::bytes_of(file.elf_header()).len() as u64;
    let mut segments = Vec::new();
    for segment in file.elf_program_headers() {
        let content = segment.data(endian, executable).map_err(|()| "a segment ends behind its file".to_owned())?;
        let skipped = header.saturating_sub(segment.p_offset(endian)).min(content.len() as u64);
        let skipped = usize::try_from(skipped).map_err(|error| error.to_string())?;
        segments.push(Segment { header: pod::bytes_of(segment), content: &content[skipped..] });
    }
    Ok((file.elf_header().e_entry(endian), segments))
}

/// A part of an executable: where it is and goes, and what it holds.
#[derive(PartialEq, Eq)]
struct Segment<'a> {
    header: &'a [u8],
    content: &'a [u8],
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection};

    use super::*;

    #[test]
    fn a_stripped_executable_is_shorter_and_runs() {
        use std::os::unix::fs::PermissionsExt;

        // This one.
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let stripped = without_debug_sections(&whole).unwrap().expect("tests are built with debug information");
        assert!(stripped.len() < whole.len());
        let file = object::File::parse(&stripped[..]).unwrap();
        assert!(file.section_by_name(".debug_info").is_none_or(|section| section.size() == 0));
        assert!(file.symbol_table().is_some(), "backtraces have names");
        assert_eq!(without_debug_sections(&stripped), Ok(None), "once is enough");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stripped");
        std::fs::write(&path, &stripped).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let output = std::process::Command::new(&path).args(["--list", "--format=terse"]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("a_stripped_executable_is_shorter_and_runs"));
    }

    #[test]
    fn what_is_packed_behind_an_executable_stays() {
        let mut whole = std::fs::read("/proc/self/exe").unwrap();
        whole.extend_from_slice(b"a zip file, say");
        let error = without_debug_sections(&whole).unwrap_err();
        assert!(error.contains("goes on for 15 bytes"), "{error}");
    }

    #[test]
    fn what_is_no_executable_is_said() {
        assert!(without_debug_sections(b"\x7fELF and no more").unwrap_err().contains("cannot be taken apart"));
    }
}
