//! Speaks MCP; opens no socket, knows no policy, holds no key.
