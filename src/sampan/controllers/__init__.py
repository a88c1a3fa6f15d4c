"""One module per controller: pure observe/plan pairs run by sampan.control."""
