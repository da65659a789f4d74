#!/usr/bin/python3
"""Writes a file as a C++ string: embed.py INPUT OUTPUT NAME."""
import sys

with open(sys.argv[1], encoding='utf-8') as source:
    text = source.read()
assert ')weir"' not in text
with open(sys.argv[2], 'w', encoding='utf-8') as out:
    out.write('// Made by embed.py from ' + sys.argv[1].rsplit('/', 1)[-1] + '.\n#pragma once\n')
    out.write('#include <string_view>\n')
    out.write(f'inline constexpr std::string_view {sys.argv[3]} = R"weir({text})weir";\n')
