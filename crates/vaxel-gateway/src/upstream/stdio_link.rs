//! A stdio server: the pipes of a child as a [`Channel`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
    task::JoinSet,
};
use vaxel_mcp::lines::{Line, Lines};

use super::channel::Channel;

/// Messages written to the child at once.
const BATCH: usize = 64;

/// Starts to read and write the pipes of a child. Both end with what is returned.
pub(crate) fn open(
    channel: &Arc<Channel>,
    queue: mpsc::Receiver<Bytes>,
    (stdin, stdout): (ChildStdin, ChildStdout),
    line_max: usize,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(write(Arc::clone(channel), stdin, queue));
    tasks.spawn(read(Arc::clone(channel), stdout, line_max));
    tasks
}

async fn write(channel: Arc<Channel>, mut stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut buffer = BytesMut::new();
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        for message in batch.drain(..) {
            frame(&mut buffer, &message);
        }
        if let Err(error) = stdin.write_all(&buffer).await {
            return channel.end(&format!("its standard input is closed ({error})"));
        }
        buffer.clear();
    }
}

/// Appends one message as one line. A line feed in JSON can only be white space.
fn frame(buffer: &mut BytesMut, message: &[u8]) {
    let start = buffer.len();
    buffer.extend_from_slice(message);
    for byte in &mut buffer[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    buffer.extend_from_slice(b"\n");
}

async fn read(channel: Arc<Channel>, mut stdout: ChildStdout, line_max: usize) {
    let mut lines = Lines::new(line_max);
    let mut chunk = BytesMut::with_capacity(64 << 10);
    loop {
        match stdout.read_buf(&mut chunk).await {
            Ok(0) => return channel.end("it closed its standard output"),
            Err(error) => return channel.end(&format!("its standard output broke ({error})")),
            Ok(_) => {}
        }
        lines.push(&chunk);
        chunk.clear();
        while let Some(line) = lines.next() {
            match line {
                Line::Message(message) => channel.receive(message),
                Line::Garbage { text, .. } => channel.found_garbage(&text),
                Line::TooLong { bytes } => {
                    channel.found_garbage(&format!("a line of {bytes} bytes, limit {line_max}"));
                }
            }
        }
    }
}
