"""Pictures with names in packages of npm and Debian: emoji, icons, stamps for children, clip art.

Each reader yields an `Item` for every picture that has a name. `prepared_pairs` renders them once.
"""

import collections
import json
import pathlib
import re
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vit_jax.data.caption_files import clean
from vit_jax.errors import UserError

_SETS = ('openmoji', 'twemoji', 'noto', 'fluent-emoji-flat')  # of emoji, in colour, each by an artist of its own
_SKIN = re.compile('[\U0001f3fb-\U0001f3ff]')
_VARIATION = '\ufe0f'  # asks for a picture of a character; names do not depend on it
_LEFT_OUT = ('Logos', 'Emoji')  # categories of icons: brands are names, and emoji are a set of their own
_STYLE = re.compile(r'\d+(px)?|alt|outlined?|filled?|bold|solid|line|linear|twotone|duotone')  # in an icon's name
_FEWEST_ARTISTS = 10  # who draw a concept that is kept
_STAMPS, _CLIPART = pathlib.Path('/usr/share/tuxpaint/stamps'), pathlib.Path('/usr/share/openclipart/svg')
_ALIKE = ('shapes/stars', 'computer/icons/flat-theme')  # more than a thousand pictures each that differ in little
_NO_TITLE = re.compile(r'\W*|untitled.*|unsorted|unknown|.*\.svg', re.I)
_NO_KEYWORD = {'unsorted', 'clip art', 'clipart', 'image', 'media', 'svg', 'png', 'public domain'}


class Item(NamedTuple):
  """A picture: an SVG as text or an encoded file, its captions by language, who made it, and what allows its use."""
  picture: str | bytes
  captions: dict[str, list[str]]
  artist: str
  set: str  # a part of the whole that can be held out as well as an artist
  licence: str


class Package(NamedTuple):
  """How a set is read: from a folder of packages, at a size in pixels; with the command that installs them."""
  read: Callable[[pathlib.Path], Iterator[Item]]
  size: int
  concepts: bool  # whether its names are those of concepts, which several pictures share: these are its classes
  install: str


def _emoji(packages):
  """Emoji without skin tones, by four artists, with their names in the languages of Unicode's CLDR."""
  names = collections.defaultdict(dict)
  for kind in ('annotations', 'annotations-derived'):
    root = _npm(packages, f'cldr-{kind}-full')
    for path in sorted(root.glob('annotations*/*/annotations.json')):
      (content,) = json.loads(path.read_text()).values()
      for character, found in content.get('annotations', {}).items():
        if texts := [clean(text) for text in found.get('tts', ())]:
          names[character.replace(_VARIATION, '')].setdefault(path.parent.name, texts)
  for name in _SETS:
    root = _npm(packages, f'@iconify-json/{name}')
    icons, chars, info = (json.loads((root / f'{file}.json').read_text()) for file in ('icons', 'chars', 'info'))
    seen = set()
    for codes, icon in chars.items():
      character = ''.join(chr(int(code, 16)) for code in codes.split('-')).replace(_VARIATION, '')
      found = names.get(character, {})
      if 'en' in found and icon in icons['icons'] and character not in seen and not _SKIN.search(character):
        seen.add(character)
        yield Item(_svg(icons, icons['icons'][icon]), found, info['author']['name'], name, _licence(info))


def _icons(packages):
  """Icons of concepts that ten artists or more have drawn. An icon's name is its concept, without words of style."""
  sets, artists = [], collections.defaultdict(set)
  for path in sorted((_npm(packages, '@iconify/json') / 'json').glob('*.json')):
    icons = json.loads(path.read_text())
    info = icons['info']
    if info.get('category') in _LEFT_OUT or 'NC' in _licence(info):
      continue
    named = {icon: _concept(icons, icon) for icon, body in icons['icons'].items() if not body.get('hidden')}
    sets.append((icons, info, named))
    for concept in named.values():
      artists[concept].add(info['author']['name'])
  for icons, info, named in sets:
    for icon, concept in named.items():
      if concept and len(artists[concept]) >= _FEWEST_ARTISTS:
        yield Item(_svg(icons, icons['icons'][icon]), {'en': [concept]}, info['author']['name'], icons['prefix'],
                   _licence(info))


def _concept(icons, name):
  """'arrow down' of 'arrow-down-outline', where the set says that outline is a style."""
  for suffix in sorted(filter(None, icons.get('suffixes', ())), key=len, reverse=True):
    name = name.removesuffix(f'-{suffix}')
  for prefix in sorted(filter(None, icons.get('prefixes', ())), key=len, reverse=True):
    name = name.removeprefix(f'{prefix}-')
  return ' '.join(word for word in name.split('-') if not _STYLE.fullmatch(word))


def _svg(icons, icon):
  left, top, width, height = (icon.get(name, icons.get(name, default)) for name, default in (
      ('left', 0), ('top', 0), ('width', 16), ('height', 16)))
  return ('<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
          f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>')


def _licence(info):
  return info['license'].get('spdx') or info['license']['title']


def _stamps(packages):
  """Tux Paint's stamps: cut-out pictures, of which many are photographs, with a sentence each in many languages."""
  del packages
  for path in sorted(_debian(_STAMPS, 'stamps').rglob('*.txt')):
    picture = next((p for p in (path.with_suffix('.png'), path.with_suffix('.svg')) if p.is_file()), None)
    if picture is None:
      continue
    first, *others = path.read_text(errors='replace').splitlines() or ['']
    captions = {'en': [clean(first)]}
    for line in others:
      language, equals, text = line.partition('.utf8=')
      if equals and '@' not in language and clean(text):
        captions[language.replace('_', '-')] = [clean(text)]
    content = picture.read_bytes()
    yield Item(content if picture.suffix == '.png' else content.decode(errors='replace'), captions,
               'Bill Kendrick and others', path.relative_to(_STAMPS).parts[0], 'GPL-2.0')


def _clipart(packages):
  """The Open Clip Art Library as Debian has it: a title, and keywords as a second caption."""
  del packages
  for path in sorted(_debian(_CLIPART, 'clipart').rglob('*.svg')):
    folder = path.relative_to(_CLIPART).as_posix()
    if path.is_symlink() or folder.startswith(_ALIKE):
      continue
    try:
      text = path.read_text(errors='replace')
      work = next((e for e in xml.etree.ElementTree.fromstring(text).iter() if _local(e) == 'Work'), None)
    except (xml.etree.ElementTree.ParseError, OSError):
      continue
    if work is None:
      continue
    parts = {_local(child): child for child in work}
    title = clean(parts['title'].text or '') if 'title' in parts else ''
    keywords = [clean(e.text or '') for e in parts['subject'].iter() if _local(e) == 'li'] if 'subject' in parts else []
    keywords = [word for word in dict.fromkeys(keywords) if word and word.lower() not in _NO_KEYWORD]
    artist = next((clean(e.text or '') for e in parts['creator'].iter() if _local(e) == 'title'),
                  '') if 'creator' in parts else ''
    if not _NO_TITLE.fullmatch(title):
      captions = [title, *([', '.join(keywords)] if len(keywords) > 1 else [])]
      yield Item(text, {'en': captions}, artist or 'unknown', folder.partition('/')[0], 'public domain')


def _local(element):
  return element.tag.rpartition('}')[2] if isinstance(element.tag, str) else ''


_NPM = 'npm install --prefix {} '
PACKAGES = {
    'emoji': Package(_emoji, 64, True, _NPM + ' '.join((
        'cldr-annotations-full', 'cldr-annotations-derived-full', *(f'@iconify-json/{name}' for name in _SETS)))),
    'icons': Package(_icons, 32, True, _NPM + '@iconify/json'),
    'stamps': Package(_stamps, 128, False, 'apt-get install tuxpaint-stamps-default'),
    'clipart': Package(_clipart, 128, False, 'apt-get install openclipart-svg'),
}


def _npm(packages, name):
  for root in (packages / 'node_modules' / name, pathlib.Path('node_modules') / name):
    if root.is_dir():
      return root
  what = 'icons' if name == '@iconify/json' else 'emoji'
  raise UserError(f'--name={what}: no package {name} in {packages}/node_modules; fetch what is needed with '
                  f'`{PACKAGES[what].install.format(packages)}`')


def _debian(folder, what):
  if not folder.is_dir():
    raise UserError(f'--name={what}: no folder {folder}; install it with `{PACKAGES[what].install}`, or from another '
                    "system copy that package's files there")
  return folder
