//! Keeps processes as asked; knows no HTTP and no MCP.
