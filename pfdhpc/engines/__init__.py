"""The programs that do the work: explorers, labelers and trainers."""
