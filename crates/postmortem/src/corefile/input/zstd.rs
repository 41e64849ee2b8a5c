//! Cores packed by zstd: by the C library, or, where the program is built without it, by a decoder in Rust.

#[cfg(not(feature = "zstd"))]
pub(super) use in_rust::Frames;
#[cfg(feature = "zstd")]
pub(super) use library::Frames;

/// Several frames are one stream, skippable ones among them (pzstd, seekable archives).
#[cfg(feature = "zstd")]
mod library {
    use std::io::{self, BufRead, Read};

    /// Decodes one frame after the other. A window of more than 128 MiB is refused.
    pub struct Frames<'d, R: BufRead>(zstd::stream::read::Decoder<'d, R>);

    impl<R: BufRead> Frames<'_, R> {
        pub fn new(packed: R) -> io::Result<Self> {
            zstd::stream::read::Decoder::with_buffer(packed).map(Self)
        }
    }

    impl<R: BufRead> Read for Frames<'_, R> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0.read(out)
        }
    }
}

/// Several frames are one stream; the decoder knows one.
#[cfg(not(feature = "zstd"))]
mod in_rust {
    use std::io::{self, BufRead, Read};

    /// Decodes one frame after the other.
    pub struct Frames<'d, R: BufRead> {
        packed: R,
        frame: Option<Box<ruzstd::decoding::FrameDecoder>>,
        lives: std::marker::PhantomData<&'d ()>,
    }

    impl<R: BufRead> Frames<'_, R> {
        pub fn new(packed: R) -> io::Result<Self> {
            Ok(Self {
                packed,
                frame: None,
                lives: std::marker::PhantomData,
            })
        }

        /// Starts the next frame; `false` at the end of the file.
        fn next_frame(&mut self) -> io::Result<bool> {
            use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
            loop {
                if self.packed.fill_buf()?.is_empty() {
                    return Ok(false);
                }
                let mut decoder = self.frame.take().unwrap_or_default();
                match decoder.reset(&mut self.packed) {
                    Ok(()) => {
                        self.frame = Some(decoder);
                        return Ok(true);
                    }
                    Err(FrameDecoderError::ReadFrameHeaderError(
                        ReadFrameHeaderError::SkipFrame { length, .. },
                    )) => {
                        io::copy(
                            &mut self.packed.by_ref().take(length.into()),
                            &mut io::sink(),
                        )?;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }
    }

    impl<R: BufRead> Read for Frames<'_, R> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            use ruzstd::decoding::BlockDecodingStrategy;
            loop {
                let Some(frame) = self.frame.as_mut() else {
                    if self.next_frame()? {
                        continue;
                    }
                    return Ok(0);
                };
                let count = frame.read(out)?;
                if count > 0 {
                    return Ok(count);
                }
                if frame.is_finished() {
                    if !self.next_frame()? {
                        self.frame = None;
                        return Ok(0);
                    }
                    continue;
                }
                frame
                    .decode_blocks(
                        &mut self.packed,
                        BlockDecodingStrategy::UptoBytes(out.len()),
                    )
                    .map_err(io::Error::other)?;
            }
        }
    }
}
