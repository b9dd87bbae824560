//! How a shell's connection ends, in the words of the WebSocket's close frame. Pure.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::limits;

/// Longest reason that a close frame holds (RFC 6455 §5.5).
const MAX_REASON: usize = 123;

/// Why the shells of a life end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The MicroVM is being suspended, which no terminal survives.
    Suspended,
    /// The MicroVM is being terminated.
    Terminated,
}

/// What the client of a shell is told at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closing {
    /// The shell has exited.
    Exited,
    /// Its life ends.
    Farewell(Farewell),
    /// The guest can no longer be reached.
    Lost,
    /// The server stops, and the MicroVM goes on.
    Stopping,
    /// There is no shell to be had: why.
    Failed(String),
    /// The client sent more at once than is taken.
    TooLong,
    /// The client does not speak the protocol.
    Broken,
}

impl Closing {
    /// What the client did to end it; `None` where it is gone, and nobody is there to be told.
    pub(super) fn after(error: &Error) -> Option<Self> {
        match error {
            Error::Capacity(_) => Some(Self::TooLong),
            Error::Protocol(_) | Error::Utf8(_) => Some(Self::Broken),
            _ => None,
        }
    }

    /// Whether there are bytes of the client's that nobody will read.
    pub(super) fn leaves_unread(&self) -> bool {
        matches!(self, Self::TooLong | Self::Broken)
    }

    pub(super) fn frame(&self) -> CloseFrame {
        let (code, reason) = match self {
            Self::Exited => (CloseCode::Normal, "shell exited"),
            Self::Farewell(Farewell::Suspended) => (CloseCode::Away, "microvm suspended"),
            Self::Farewell(Farewell::Terminated) => (CloseCode::Away, "microvm terminated"),
            Self::Lost => (CloseCode::Away, "connection to the microvm lost"),
            Self::Stopping => (CloseCode::Away, "server stopping; the microvm goes on, connect again"),
            Self::Failed(why) => (CloseCode::Error, why.as_str()),
            Self::TooLong => {
                return frame(
                    CloseCode::Size,
                    &format!("send at most {} bytes at once", limits::MAX_SHELL_MESSAGE),
                );
            }
            Self::Broken => (CloseCode::Protocol, "not a message of the WebSocket protocol"),
        };
        frame(code, reason)
    }
}

fn frame(code: CloseCode, reason: &str) -> CloseFrame {
    CloseFrame { code, reason: reason[..reason.floor_char_boundary(MAX_REASON)].into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(closing: &Closing) -> (u16, String) {
        let frame = closing.frame();
        (frame.code.into(), frame.reason.to_string())
    }

    #[test]
    fn each_end_has_its_code_and_reason() {
        for (closing, code, reason) in [
            (Closing::Exited, 1000, "shell exited"),
            (Closing::Farewell(Farewell::Suspended), 1001, "microvm suspended"),
            (Closing::Farewell(Farewell::Terminated), 1001, "microvm terminated"),
            (Closing::Lost, 1001, "connection to the microvm lost"),
            (Closing::Failed("no bash".into()), 1011, "no bash"),
            (Closing::TooLong, 1009, "send at most 1048576 bytes at once"),
        ] {
            assert_eq!(told(&closing), (code, reason.to_owned()));
        }
    }

    #[test]
    fn a_reason_fits_its_frame_and_stays_text() {
        let (_, reason) = told(&Closing::Failed("λ".repeat(100)));
        assert_eq!(reason, "λ".repeat(61));
    }
}
