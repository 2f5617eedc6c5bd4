"""Sets of pictures with names, rendered from packages: tiny ones of their own form."""

import importlib.util
import io
import json
import sys

import command_line
import numpy as np
import pytest
from PIL import Image

from vit_jax.data import picture_packages, pipeline, prepared_pairs
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError

COLOURS = {'red': '#f00', 'green': '#0f0', 'blue': '#00f', 'grey': '#888'}
LICENCE = {'title': 'Apache 2.0', 'spdx': 'Apache-2.0'}
needs_resvg = pytest.mark.skipif(importlib.util.find_spec('resvg_py') is None, reason='no resvg-py')


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content if isinstance(content, str) else json.dumps(content))


def shape(colour, kind=0):
  return [f'<circle cx="8" cy="8" r="6" fill="{colour}"/>', f'<path fill="{colour}" d="M1 1h9v12z"/>'][kind]


@pytest.fixture(name='packages')
def _packages(tmp_path):
  """Emoji of four artists: the heart in two colours, a whale with and without a skin tone, and one without a name."""
  modules = tmp_path / 'node_modules'
  names = {'en': {'❤': 'red heart', '💚': 'green heart', '🐳': 'spouting whale', '🐳🏽': 'whale: medium skin tone'},
           'de': {'❤': 'rotes Herz', '💚': 'grünes Herz'}}
  for language, found in names.items():
    content = {'annotations': {key: {'tts': [name], 'default': ['x']} for key, name in found.items()}}
    write(modules / f'cldr-annotations-full/annotations/{language}/annotations.json', {'annotations': content})
  write(modules / 'cldr-annotations-derived-full/annotationsDerived/en/annotations.json', {'annotationsDerived': {
      'annotations': {'🇩🇪': {'tts': ['flag: Germany']}}}})
  write(modules / 'cldr-annotations-derived-full/annotationsDerived/xx/annotations.json', {'annotationsDerived': {}})
  chars = {'2764-fe0f': 'heart', '2764': 'heart', '1f49a': 'green', '1f433': 'whale', '1f433-1f3fd': 'tone',
           '1f1e9-1f1ea': 'flag', 'e000': 'private'}
  for i, name in enumerate(picture_packages._SETS):
    size = 16 + i  # no two sets draw the same
    body = {'heart': shape('#f00'), 'green': shape('#0f0'), 'whale': shape('#00f', 1), 'tone': shape('#840', 1),
            'flag': shape('#ff0', 1), 'private': shape('#0ff')}
    root = modules / f'@iconify-json/{name}'
    write(root / 'icons.json', {'width': size, 'height': size, 'icons': {k: {'body': v} for k, v in body.items()}})
    write(root / 'chars.json', chars)
    write(root / 'info.json', {'author': {'name': f'Artist {i}'}, 'license': LICENCE})
  return tmp_path


@needs_resvg
def test_emoji(packages, capsys):
  about = prepared_pairs.prepare('emoji', str(packages))
  assert (about['pictures'], about['artists'], about['licences']) == (16, 4, {'Apache-2.0': 16})
  assert prepared_pairs.prepare('emoji', str(packages))['digest'] == about['digest']
  found = prepared_pairs.open_prepared('emoji', str(packages))['train']
  assert found.images.shape == (16, 64, 64, 3) and found.class_names == ('flag: Germany', 'green heart', 'red heart',
                                                                        'spouting whale')
  red = [i for i, texts in enumerate(found.captions) if texts == ('red heart',)]
  assert len(red) == 4 and {tuple(found.images[i][30, 30]) for i in red} == {(255, 0, 0)}
  assert (found.images[:, 0, 0] == 255).all() and {found.labels[i] for i in red} == {2}
  both = prepared_pairs.open_prepared('emoji:de,en', str(packages))['train']
  assert both.captions[red[0]] == ('rotes Herz', 'red heart') and len(both) == 16
  german = prepared_pairs.open_prepared('emoji:de@Artist 1', str(packages))
  assert len(german['train']) == 6 and len(german['test']) == 2 and not capsys.readouterr().out
  assert sorted(german['test'].captions) == [('grünes Herz',), ('rotes Herz',)]


@needs_resvg
def test_an_artist_who_is_held_out_and_names_that_were_seen(packages):
  prepared_pairs.prepare('emoji', str(packages))
  read = lambda source, **changes: pipeline.open_data(
      DataConfig(source=source, data_dir=str(packages), batch_size=4, **changes)).reading(['image', 'text'])
  by_set, by_artist = read('emoji@noto', val_examples=0), read('emoji:en@Artist 2', val_examples=0)
  assert by_set.fingerprint('test') == by_artist.fingerprint('test') and by_set.size('test') == 4
  assert by_set.seen('test').all()
  small = read('emoji@noto', val_examples=0, unique_examples=1)
  assert small.seen('test').sum() == 1 and small.seen('train').all()
  assert by_set.fingerprint('test') != read('emoji@twemoji').fingerprint('test')
  for source, message in {
      'emoji@toto': "none of the pictures are by 'toto'; did you mean 'noto'",
      'emoji:ed': "no captions in 'ed'",
      'stamps': r'not prepared in .*stamps. Run `python -m vit_jax.data.prepare --name=stamps --data_dir='}.items():
    with pytest.raises(UserError, match=message):
      read(source)
  (packages / 'emoji/table.jsonl').write_text('')
  with pytest.raises(UserError, match='emoji is damaged: 16 pictures, 0 lines'):
    read('emoji')


@needs_resvg
def test_icons_of_concepts_that_many_draw_without_words_of_style(tmp_path):
  root = tmp_path / 'node_modules/@iconify/json/json'
  for i in range(12):
    icons = {'home-outline': {'body': shape('#000')}, 'home': {'body': shape('currentColor', 1)},
             'rare' if i else 'rarer': {'body': shape('#f00')}, 'gone': {'body': shape('#f0f'), 'hidden': True}}
    info = {'author': {'name': f'A{i if i < 11 else 0}'}, 'license': LICENCE, 'category': 'Logos' if i == 11 else 'UI'}
    write(root / f's{i}.json', {'prefix': f's{i}', 'icons': icons, 'info': info, 'width': 20 + i, 'height': 20 + i,
                                'suffixes': {'': 'Fill', 'outline': 'Outline'}})
  write(root / 'closed.json', {'prefix': 'closed', 'icons': {'home': {'body': shape('#00f')}}, 'info': {
      'author': {'name': 'B'}, 'license': {'title': 'x', 'spdx': 'CC-BY-NC-4.0'}}})
  prepared_pairs.prepare('icons', str(tmp_path))
  found = prepared_pairs.open_prepared('icons@s3', str(tmp_path))
  assert found['train'].class_names == ('home', 'rare') and len(found['test']) == 3
  assert sorted(found['test'].captions) == [('home',), ('home',), ('rare',)] and len(found['train']) == 29


@needs_resvg
def test_stamps(tmp_path, monkeypatch):
  monkeypatch.setattr(picture_packages, '_STAMPS', tmp_path / 'stamps')
  wide = Image.new('RGBA', (40, 20), (0, 0, 255, 255))
  wide.putpixel((0, 0), (0, 0, 0, 0))
  (tmp_path / 'stamps/birds').mkdir(parents=True)
  wide.save(tmp_path / 'stamps/birds/a.png')
  write(tmp_path / 'stamps/birds/a.txt', 'A blue  bird.\nde.utf8=Ein Vogel.\npt_BR.utf8=Um\nca@valencia.utf8=Un\n'
        'fr.utf8=\n')
  tall = ('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" height="90pt" width="30pt">'
          '<path d="M0 0h60v160H0z"/></svg>')
  write(tmp_path / 'stamps/cars/b.svg', tall)
  write(tmp_path / 'stamps/cars/b.txt', 'A car.')
  write(tmp_path / 'stamps/cars/c.svg', 'no svg')
  write(tmp_path / 'stamps/cars/c.txt', 'Another.')
  write(tmp_path / 'stamps/cars/sound.txt', 'No picture.')
  about = prepared_pairs.prepare('stamps', str(tmp_path / 'out'))
  assert about['pictures'] == 2 and about['left_out'] == {'cannot be rendered': 1}
  found = prepared_pairs.open_prepared('stamps', str(tmp_path / 'out'))['train']
  assert found.captions == [('A blue bird.',), ('A car.',)] and found.class_names == ()
  bird, car = found.images
  assert tuple(bird[64, 64]) == (0, 0, 255) and (bird[:31] == 255).all() and (bird[-31:] == 255).all()
  assert not car[:, 55:73].any() and (car[:, :42] == 255).all() and (car[:, -42:] == 255).all()
  row = json.loads((tmp_path / 'out/stamps/table.jsonl').read_text().splitlines()[0])
  assert row['captions'] == {'en': ['A blue bird.'], 'de': ['Ein Vogel.'], 'pt-BR': ['Um']}
  assert (row['set'], row['licence']) == ('birds', 'GPL-2.0')


@needs_resvg
def test_clipart(tmp_path, monkeypatch):
  monkeypatch.setattr(picture_packages, '_CLIPART', tmp_path / 'svg')
  names = {'dc': 'http://purl.org/dc/elements/1.1/', 'cc': 'http://web.resource.org/cc/',
           'rdf': 'http://www.w3.org/1999/02/22-rdf-syntax-ns#'}

  def clip(title, colour, *words):
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" '
            f'{" ".join(f"""xmlns:{name}="{address}" """ for name, address in names.items())}><metadata><rdf:RDF>'
            f'<cc:Work><dc:title>{title}</dc:title><dc:subject><rdf:Bag>'
            f'{"".join(f"<rdf:li>{word}</rdf:li>" for word in words)}</rdf:Bag></dc:subject><dc:creator><cc:Agent>'
            '<dc:title>Ann</dc:title></cc:Agent></dc:creator></cc:Work></rdf:RDF></metadata>'
            f'{shape(colour)}</svg>')

  for name, content in {
      'food/a.svg': clip('An apple', '#f00', 'fruit', 'clipart', 'red'), 'food/b.svg': clip('', '#0f0'),
      'food/same.svg': clip('Apple again', '#f00'), 'food/c.svg': '<svg', 'food/d.svg': '<svg/>',
      'shapes/stars/e.svg': clip('star', '#00f'), 'food/f.svg': clip('Nothing', '#fff')}.items():
    write(tmp_path / 'svg' / name, content)
  about = prepared_pairs.prepare('clipart', str(tmp_path / 'out'))
  assert about['left_out'] == {'equal to others': 1, 'blank, or without a caption': 1}
  (row,) = map(json.loads, (tmp_path / 'out/clipart/table.jsonl').read_text().splitlines())
  assert row == {'captions': {'en': ['An apple', 'fruit, red', 'Apple again']}, 'artist': 'Ann', 'set': 'food',
                 'licence': 'public domain'}


@needs_resvg
@pytest.mark.slow
def test_the_command_says_what_came_out(packages):
  said = command_line.run('data.prepare', '--name=emoji', f'--data_dir={packages}').stdout
  digest = json.loads((packages / 'emoji/set.json').read_text())['digest']
  assert f'emoji: 16 pictures of 64x64 by 4 artists, digest {digest}' in said and 'licences: 16 Apache-2.0' in said
  assert f'--config.data.source=emoji --config.data.data_dir={packages}' in said


@needs_resvg
def test_packages_that_are_absent_are_named(packages, monkeypatch):
  with pytest.raises(UserError, match=r'no package @iconify/json in .*`npm install --prefix .* @iconify/json`'):
    prepared_pairs.prepare('icons', str(packages))
  monkeypatch.setattr(picture_packages, '_CLIPART', packages / 'absent')
  with pytest.raises(UserError, match='`apt-get install openclipart-svg`'):
    prepared_pairs.prepare('clipart', str(packages))
  assert not list(packages.glob('*.part'))


def test_without_resvg_it_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'resvg_py', None)
  with pytest.raises(UserError, match='uv run --extra icons python -m vit_jax.data.prepare --name=stamps'):
    prepared_pairs.prepare('stamps', str(tmp_path))


def test_pictures_are_centred_on_white():
  file = io.BytesIO()
  Image.new('L', (10, 30), 0).save(file, 'png')
  image = prepared_pairs.render(file.getvalue(), 12)
  assert image.shape == (12, 12, 3) and not image[:, 4:8].any() and (image[:, :4] == 255).all()
  np.testing.assert_array_equal(image, image[:, ::-1])
