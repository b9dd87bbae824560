//! Where the guest agent is.

use std::path::{Path, PathBuf};

use platform::Assets;

/// Variable that names it.
const VARIABLE: &str = "REKINDLE_AGENT";
const NAME: &str = "rekindle-agent";

/// The agent that the environment names, or the one beside this program, or the one among the assets.
pub(crate) fn find(assets: &Assets) -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(NAME)));
    first([named, beside, Some(assets.dir.join(NAME))])
}

fn first<const N: usize>(candidates: [Option<PathBuf>; N]) -> Option<PathBuf> {
    candidates.into_iter().flatten().find(|path: &PathBuf| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_there_is_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, there) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&there, "").unwrap();
        assert_eq!(first([None, Some(missing.clone()), Some(there.clone())]), Some(there));
        assert_eq!(first([Some(missing), Some(dir.path().to_owned())]), None);
    }
}
