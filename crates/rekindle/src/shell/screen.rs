//! What a shell shows, on standard output.

use std::io;

use tokio::io::{AsyncWriteExt, Stdout};

/// Standard output, written as the bytes come.
pub(crate) struct Screen(Stdout);

impl Default for Screen {
    fn default() -> Self {
        Self(tokio::io::stdout())
    }
}

impl Screen {
    pub(crate) async fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }
}

/// Columns and rows of this terminal, if it is one.
pub(crate) fn window() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
    Some((size.ws_col, size.ws_row))
}
