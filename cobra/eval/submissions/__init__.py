"""Submissions: files of answers in the formats of the servers and judges that score them."""
