//! The folder of one repository in the cache: `blobs/` with contents by hash, `snapshots/COMMIT/`
//! with links to them by name, `refs/` with the commits of branches and tags, and `.no_exist/` with
//! the names of files that a commit is known not to have.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::name::is_commit;
use crate::Result;
use crate::base::write_whole;

/// The folder of a repository.
#[derive(Clone, Debug)]
pub(super) struct RepoCache {
    root: PathBuf,
    folder_name: String,
}

impl RepoCache {
    /// The folder of the repository `id` in the cache at `root`; it need not be there.
    pub fn new(root: &Path, id: &str) -> Self {
        let folder_name = format!("models--{}", id.replace('/', "--"));
        Self { root: root.to_owned(), folder_name }
    }

    /// The folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.folder_name)
    }

    /// The commit of a revision, as far as the cache knows.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return self.snapshot(revision).is_dir().then(|| revision.to_owned());
        }
        let text = fs_err::read_to_string(self.folder().join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The folder with the files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// Whether a file of a commit is there.
    pub fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    /// Whether a commit is known not to have a file.
    pub fn lacks(&self, commit: &str, file: &str) -> bool {
        self.folder().join(".no_exist").join(commit).join(file).exists()
    }

    /// Writes down that a commit does not have a file.
    pub fn note_absence(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.folder().join(".no_exist").join(commit).join(file);
        make_parent(&path)?;
        Ok(fs_err::write(path, "")?)
    }

    /// Where a content lies, by its hash.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// The file that whoever fetches a content locks.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.root.join(".locks").join(&self.folder_name).join(format!("{etag}.lock"))
    }

    /// Gives a content the name of a file of a commit: by a link, or by a copy where the file
    /// system has no links.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        make_parent(&path)?;
        let up = "../".repeat(2 + file.matches('/').count());
        // Under another name first, so that nobody meets a name without a file.
        let new = path.with_file_name(format!(".{}.{}", etag, std::process::id()));
        let _ = fs_err::remove_file(&new);
        match symlink(format!("{up}blobs/{etag}"), &new) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) =>
            {
                fs_err::copy(self.blob(etag), &new)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(fs_err::rename(new, path)?)
    }

    /// Writes down the commit of a revision.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        make_parent(&path)?;
        // Without a newline: other programs read the file as it is.
        write_whole(&path, commit.as_bytes())
    }
}

/// Makes the folder of a file.
pub(super) fn make_parent(path: &Path) -> Result<()> {
    Ok(path.parent().map_or(Ok(()), fs_err::create_dir_all)?)
}
