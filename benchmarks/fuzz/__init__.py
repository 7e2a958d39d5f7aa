"""Inputs by seed, right and wrong ones, and what must come of each.

A *family* writes one kind of input: a file of a source, a configuration, a finished run. Each of its bases
(one a number) is tried as it is – the healthy twin, a valid variant that must be read right – and with two
damages. What is compared with is the table that the generator wrote, never what our reader made of it.

What a wrong input may end in depends on what can be known of it:

- *detectable* damages must be told by an error of ours, of one line, or by a warning with the rest right,
  unless the table comes out right all the same: files cut, emptied or replaced; headers damaged; values
  that are no numbers, rows twice, ids off the grid; bytes flipped where the format has a checksum (members
  of archives, deflated pixels, Parquet pages written with one, shards and sealed tables of ours);
- *undetectable* ones, such as a byte flipped in a coordinate of a shapefile or in a number of a CSV, must
  end in no traceback and no hang; a table that differs is counted as such, not as silently wrong: nobody can
  see it. They are in no share;
- *hostile* ones, which tell to read, import, run or write something else, must be refused, or what they ask
  for left undone: nothing may be opened, called, made or removed beside the input and the results.
"""
