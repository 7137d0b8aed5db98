//! From what a person wrote to what is in the cluster.

use situ_client::glob::{self, Glob, Look};
use situ_wire::messages::namenode::FileStatus;
use situ_wire::path::DfsPath;

use crate::error::{CliError, CliResult, Failures};
use crate::session::Session;

/// Takes a path as it is written, but for backslashes.
///
/// # Errors
/// When it is not a path: a wrong use.
pub fn parse(text: &str) -> CliResult<DfsPath> {
    DfsPath::parse(&glob::unescape(text)).map_err(CliError::usage)
}

/// What a person named.
#[derive(Debug)]
pub(super) struct Pattern<'a> {
    text: &'a str,
    named: Named,
}

#[derive(Debug)]
enum Named {
    /// This path.
    Path(DfsPath),
    /// Whatever matches.
    Glob(Glob),
}

impl<'a> Pattern<'a> {
    /// Takes all paths and patterns of a command as they are written, before anything is done.
    ///
    /// # Errors
    /// When one is neither: a wrong use.
    pub(super) fn parse_all(texts: &'a [String]) -> CliResult<Vec<Self>> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    fn parse(text: &'a str) -> CliResult<Self> {
        let named = if !glob::is_pattern(text) {
            Named::Path(parse(text)?)
        } else {
            Named::Glob(Glob::parse(text).map_err(CliError::usage)?)
        };
        Ok(Self { text, named })
    }

    /// All that it names, by path; at least one thing.
    ///
    /// # Errors
    /// When nothing is there, or the namenode cannot say.
    pub(super) async fn expand(&self, session: &Session) -> CliResult<Vec<FileStatus>> {
        let found = self.matching(session).await?;
        match &self.named {
            _ if !found.is_empty() => Ok(found),
            Named::Glob(_) => Err(CliError::failed(format!("{}: nothing matches", self.text))),
            Named::Path(path) => Err(CliError::failed(format!("{path}: there is no such file or directory"))),
        }
    }

    /// All that it names, by path, if there is anything.
    ///
    /// # Errors
    /// When what was written as a directory is a file, or the namenode cannot say.
    pub(super) async fn matching(&self, session: &Session) -> CliResult<Vec<FileStatus>> {
        let directory = names_directory(self.text);
        match &self.named {
            Named::Path(path) => {
                let found = session.client.stat(path).await?;
                if directory && found.as_ref().is_some_and(|status| !status.is_directory()) {
                    let text = self.text;
                    return Err(CliError::failed(format!(
                        "{text}: expected a directory, as the slash at its end says; found a file"
                    )));
                }
                Ok(found.into_iter().collect())
            }
            Named::Glob(glob) => {
                let mut found = matching_glob(session, glob.clone()).await?;
                // As in a shell, a slash at the end matches only directories.
                found.retain(|status| !directory || status.is_directory());
                Ok(found)
            }
        }
    }
}

async fn matching_glob(session: &Session, glob: Glob) -> CliResult<Vec<FileStatus>> {
    // As in a shell, a leading dot is matched only by a dot.
    let mut search = glob.search(&['.']);
    while let Some(look) = search.next_look() {
        match look {
            Look::Stat(path) => search.stated(session.client.stat(&path).await?),
            Look::List(path) => search.listed(session.client.list_all(&path).await?),
        }
    }
    Ok(search.finish())
}

/// All that several paths or patterns name.
///
/// # Errors
/// When one is neither: a wrong use; or nothing can be found out.
pub(super) async fn expand_all(
    session: &Session,
    patterns: &[String],
    failures: &mut Failures,
) -> CliResult<Vec<FileStatus>> {
    let mut found = Vec::new();
    for pattern in Pattern::parse_all(patterns)? {
        found.extend(failures.note(pattern.expand(session).await)?.into_iter().flatten());
    }
    Ok(found)
}

/// Where things go, as a person wrote it.
#[derive(Debug)]
pub(super) struct Target {
    path: DfsPath,
    /// It was written with a slash at its end: it is meant to be a directory.
    slash: bool,
}

impl Target {
    /// Takes a target as it was written.
    ///
    /// # Errors
    /// When it is not a path: a wrong use.
    pub(super) fn parse(text: &str) -> CliResult<Self> {
        Ok(Self { path: parse(text)?, slash: names_directory(text) })
    }

    /// Where the source named `name` goes: into the target if it is a directory, else to it. As with `cp` and `mv`, a
    /// directory may become what is not there yet, slash or not; a file may not if there is a slash.
    ///
    /// # Errors
    /// When `several` things are to go to what is no directory, or the slash says that it is one and it is not.
    pub(super) async fn destination(
        &self,
        session: &Session,
        name: &str,
        is_directory: bool,
        several: bool,
    ) -> CliResult<DfsPath> {
        let path = &self.path;
        let why = if several { "for several sources" } else { "as the slash at its end says" };
        // What is wrong for several sources is wrong for all of them.
        let failed = |what: String| CliError { ends: several, ..CliError::failed(format!("{path}: {what}")) };
        match session.client.stat(path).await? {
            Some(status) if status.is_directory() => path.join(name).map_err(CliError::usage),
            Some(_) if several || self.slash => Err(failed(format!("expected a directory, {why}; found a file"))),
            None if several || (self.slash && !is_directory) => Err(failed(format!(
                "expected a directory, {why}; found nothing: make it with `situ fs mkdir -p {}`",
                path.for_shell()
            ))),
            _ => Ok(path.clone()),
        }
    }

    /// The file that standard input becomes.
    ///
    /// # Errors
    /// When it is a directory, or the slash says so: standard input has no name there.
    pub(super) async fn of_input(&self, session: &Session) -> CliResult<&DfsPath> {
        let path = &self.path;
        let found = match session.client.stat(path).await? {
            Some(status) if status.is_directory() => "is a directory",
            _ if self.slash => "names a directory, as the slash at its end says",
            _ => return Ok(path),
        };
        Err(CliError::failed(format!("{path}: {found}; name the file that standard input becomes")))
    }
}

/// Whether a path or pattern, as it was written, means a directory.
fn names_directory(text: &str) -> bool {
    text.len() > 1 && text.ends_with('/')
}
