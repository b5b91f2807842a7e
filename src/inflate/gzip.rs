//! gzip (RFC 1952), member after member, with the places where deflate may be entered.

use crc_fast::{CrcAlgorithm, Digest};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::{Entry, Input, Point};
use crate::error::Result;

/// How far back deflate refers, in bytes (RFC 1951).
const WINDOW: usize = 32 << 10;

/// How much is made at once at most, in bytes.
const OUTPUT: usize = 256 << 10;

/// Flags of a member's header (RFC 1952, 2.3.1).
const HAS_CRC: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;

/// Longest header of a member, in bytes: an extra field and two texts.
const HEADER_MAX: usize = 1 << 20;

pub(super) struct Gzip {
    state: State,
    inflate: Box<DecompressorOxide>,
    /// The last [`WINDOW`] bytes that were made, or all of the member, and behind them new ones.
    out: Vec<u8>,
    filled: usize,
    /// How much of that was given out.
    given: usize,
    /// Of the member, from its start; `None` where it was entered in the middle.
    sum: Option<Sum>,
}

/// What a member says of its bytes.
struct Sum {
    crc: Digest,
    len: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first member.
    First,
    /// Before another one, or the end.
    Next,
    /// In the deflated bytes, not between two blocks.
    Within,
    /// Between two blocks.
    Boundary,
    Ended,
}

impl Sum {
    fn new() -> Sum {
        Sum { crc: Digest::new(CrcAlgorithm::Crc32IsoHdlc), len: 0 }
    }
}

impl Gzip {
    /// From the start, or from a later place on.
    pub(super) fn new(point: &Point) -> Gzip {
        let mut gzip = Gzip {
            state: if point.from == 0 { State::First } else { State::Next },
            inflate: Box::default(),
            out: vec![0; WINDOW + OUTPUT],
            filled: 0,
            given: 0,
            sum: None,
        };
        if let Entry::Block { bits, bit_buf, window } = &point.entry {
            let state = BlockBoundaryState {
                num_bits: bits & 7,
                bit_buf: *bit_buf,
                ..BlockBoundaryState::default()
            };
            *gzip.inflate = DecompressorOxide::from_block_boundary_state(&state);
            let window = &window[window.len().saturating_sub(WINDOW)..];
            gzip.out[..window.len()].copy_from_slice(window);
            gzip.filled = window.len();
            gzip.given = gzip.filled;
            gzip.state = State::Boundary;
        }
        gzip
    }

    /// What a decoder has to know to go on here.
    pub(super) fn entry(&self) -> Option<Entry> {
        if self.given < self.filled {
            return None;
        }
        match self.state {
            State::First | State::Next => Some(Entry::Start),
            State::Boundary => {
                let state = self.inflate.block_boundary_state()?;
                let window = self.out[self.filled.saturating_sub(WINDOW)..self.filled].to_vec();
                Some(Entry::Block { bits: state.num_bits, bit_buf: state.bit_buf, window })
            }
            State::Within | State::Ended => None,
        }
    }

    /// Reads the next bytes, and returns how many; none at the end.
    pub(super) fn read(&mut self, input: &mut Input, out: &mut [u8]) -> Result<usize> {
        while self.given == self.filled {
            match self.state {
                State::Ended => return Ok(0),
                State::First | State::Next => self.start(input)?,
                State::Within | State::Boundary => self.inflate(input)?,
            }
        }
        let made = &self.out[self.given..self.filled];
        let count = made.len().min(out.len());
        out[..count].copy_from_slice(&made[..count]);
        self.given += count;
        Ok(count)
    }

    /// Reads the header of a member. What follows the last member and is none is no part of the
    /// stream, as for gzip itself.
    fn start(&mut self, input: &mut Input) -> Result<()> {
        if !input.peek()?.starts_with(&[0x1f, 0x8b]) {
            if self.state == State::First {
                return Err(input.damaged("not gzip"));
            }
            self.state = State::Ended;
            return Ok(());
        }
        let mut head = [0; 10];
        for byte in &mut head {
            *byte = input.expect()?;
        }
        let (method, flags) = (head[2], head[3]);
        if method != 8 || flags & 0xe0 != 0 {
            return Err(input.damaged("an unknown kind of gzip"));
        }
        if flags & HAS_EXTRA != 0 {
            let length = u16::from_le_bytes([input.expect()?, input.expect()?]);
            for _ in 0..length {
                input.expect()?;
            }
        }
        for flag in [HAS_NAME, HAS_COMMENT] {
            let mut length = 0;
            while flags & flag != 0 && input.expect()? != 0 {
                length += 1;
                if length > HEADER_MAX {
                    return Err(input.damaged("a gzip header without an end"));
                }
            }
        }
        if flags & HAS_CRC != 0 {
            input.expect()?;
            input.expect()?;
        }
        self.inflate.init();
        (self.filled, self.given) = (0, 0);
        self.sum = Some(Sum::new());
        self.state = State::Within;
        Ok(())
    }

    /// Inflates some, once all was given out.
    fn inflate(&mut self, input: &mut Input) -> Result<()> {
        if self.filled + WINDOW > self.out.len() {
            self.out.copy_within(self.filled - WINDOW..self.filled, 0);
            (self.filled, self.given) = (WINDOW, WINDOW);
        }
        input.fill()?;
        let more = if input.is_last() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
        let flags =
            more | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let have = input.fill()?;
        let (status, taken, made) =
            decompress(&mut self.inflate, have, &mut self.out, self.filled, flags);
        input.take(taken);
        let new = &self.out[self.filled..self.filled + made];
        if let Some(sum) = &mut self.sum {
            sum.crc.update(new);
            sum.len = sum.len.wrapping_add(made as u32);
        }
        self.filled += made;
        self.state = match status {
            TINFLStatus::BlockBoundary => State::Boundary,
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => State::Within,
            TINFLStatus::Done => {
                self.end(input)?;
                State::Next
            }
            TINFLStatus::FailedCannotMakeProgress => return Err(input.damaged("cut short")),
            _ => return Err(input.damaged("not deflated")),
        };
        Ok(())
    }

    /// Reads the end of a member, and holds its bytes to it.
    fn end(&mut self, input: &mut Input) -> Result<()> {
        let mut trailer = [0; 8];
        for byte in &mut trailer {
            *byte = input.expect()?;
        }
        let Some(Sum { crc, len }) = self.sum.take() else { return Ok(()) };
        let [a, b, c, d, e, f, g, h] = trailer;
        let is_right = crc.finalize() == u64::from(u32::from_le_bytes([a, b, c, d]))
            && len == u32::from_le_bytes([e, f, g, h]);
        if is_right { Ok(()) } else { Err(input.damaged("its checksum is wrong")) }
    }
}
