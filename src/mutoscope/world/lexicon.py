"""The words that are read: those of captions, what people say in their place, and what holds a sentence together.

A phrase means a pair (kind, value); the longest phrase counts. Kinds that are facts: colour, size, material, shape,
direction, event, hat, eyes, relation, count, background, camera, style. The others help to tell who is meant.
"""

from mutoscope.world.stage import BACKGROUNDS
from mutoscope.world.words import (
    BACKGROUND_WORDS,
    BOUNCES,
    CAMERA_WORDS,
    COLOUR_WORDS,
    ENTERS,
    EYES,
    FALLS,
    HELD_OUT_SYNONYMS,
    HITS,
    HOPS,
    LANDS,
    LEAVES,
    MATERIAL_WORDS,
    NUMBERS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    STILL,
    STYLE_WORDS,
    TO_SIDE,
    VERTICAL,
)

Meaning = tuple[str, str]

ONLY_READ: dict[str, dict[str, str]] = {
    "colour": {
        "red": (
            "ruby, cherry, cherry red, blood red, maroon, vermilion, burgundy, brick red, ruby red, "
            "reddish, fire red"
        ),
        "orange": "apricot, pumpkin, carrot, coral, rust, burnt orange, sunset orange, orangey, peach",
        "yellow": (
            "gold, lemon, sunny yellow, mustard, canary, canary yellow, mustard yellow, ochre, "
            "yellowish, sandy yellow"
        ),
        "green": (
            "lime, olive, jade, mint, grass green, forest green, lime green, olive green, mint green, "
            "sea green, greenish, apple green, emerald green"
        ),
        "cyan": (
            "aqua, aquamarine, light blue, pale blue, baby blue, powder blue, sky blue, bluish green, "
            "blue-green, greenish blue, ice blue"
        ),
        "blue": (
            "navy, navy blue, cobalt, cobalt blue, sapphire, ultramarine, bluish, midnight blue, "
            "ocean blue, sea blue, periwinkle"
        ),
        "purple": "indigo, lilac, mauve, plum, amethyst, lavender, purplish, grape",
        "pink": "fuchsia, hot pink, salmon, blush, rose, baby pink, pinkish",
        "white": "ivory, snowy white, pure white, off-white, cream, whitish, milky, milk white",
        "black": "ebony, onyx, charcoal, coal black, pitch black, midnight black, ink black, blackish",
    },
    "shape": {
        "ball": (
            "round ball, disk, globe, bubble, marble, football, basketball, baseball, volleyball, "
            "soccer ball, tennis ball, bowling ball, golf ball, beach ball, beachball, round shape, "
            "circular shape, orb, bead, dot, spheroid"
        ),
        "box": "crate, brick, cardboard box, package, parcel, carton, cuboid, square box, die, rectangle",
        "triangle": "pyramid, triangular shape",
        "star": "starlet, paper star, star shape, pentagram, pointed star",
        "ring": "donut, doughnut, torus, annulus, hula hoop, hula-hoop, round ring, bagel",
        "capsule": "tablet, bean, oblong, oval, ellipse, pellet",
    },
    "form": {
        "ball": "round, circular, spherical, round-shaped",
        "box": "squared, cubic, cubical, boxy, rectangular",
        "triangle": "triangular, three-sided",
        "ring": "annular",
        "capsule": "elliptical, oval-shaped",
    },
    "size": {
        "small": (
            "miniature, teeny, teensy, teeny tiny, tiny little, itty bitty, itsy bitsy, wee, smallish, "
            "petite, minuscule, microscopic, diminutive, pint-sized, dinky, micro, smaller, smallest, "
            "tiniest, littlest, small-sized"
        ),
        "medium": (
            "normal-sized, average-sized, middling, mid-size, midsize, midsized, medium size, regular-sized"
        ),
        "large": (
            "giant, gigantic, enormous, massive, oversized, colossal, immense, jumbo, humongous, "
            "ginormous, mammoth, extra large, very large, great big, bigger, biggest, larger, largest, "
            "hulking, king-size, big-sized, large-sized"
        ),
    },
    "background": {
        "day": (
            "sunny, day, daytime, daylight, blue sky, azure sky, clear azure sky, sunny day, "
            "during the day, midday, noon, afternoon, sunshine, sunlit, clear sky, sunlight"
        ),
        "sunset": "sundown, evening, twilight, golden hour, setting sun, sunset sky, evening sky",
        "night": (
            "midnight, nighttime, night time, night sky, moonlight, moonlit, starry night, dark night, "
            "starry sky, nite, in the dark, under the stars, sky of stars, sky full of stars, starlight, "
            "starlit, nightfall, by night"
        ),
        "desert": "sand, sahara, sandy, dune, sand dunes, sandy dunes, desert sand",
        "meadow": (
            "grass, field, grassland, lawn, pasture, prairie, grassy, green field, green grass, meadows, "
            "fields, countryside, green hills, grassy hills"
        ),
        "ocean": (
            "sea, seaside, seashore, shore, beach, waves, wave, coast, coastline, sandy beach, "
            "sandy shore, by the water, sea shore, oceanside"
        ),
        "lavender": (
            "lavender room, violet room, purple room, lilac room, lavender background, "
            "purple background, violet background, lilac background, lavender wall, lavender walls"
        ),
        "snow": (
            "snowy, snow, winter, snowfield, wintry, snowy peaks, snowy mountains, white snow, snowfall, "
            "snowing, it snows, snow-covered"
        ),
    },
    "hat": {"": "hat, hats, cap, caps"},
    "eyes": {
        "1": "eye, single eye, a single eye, 1 eye, one eyed, 1 eyed",
        "2": "eyes, pair of eyes, a pair of eyes, 2 eyes, two eyed, 2 eyed",
        "3": "3 eyes, three eyed, 3 eyed",
    },
    "direction": {
        "left": (
            "leftwards, leftward, to left, toward the left, towards the left, to the left side, "
            "right to left, west, from the right to the left, "
            "from the right side to the left side, from right side to the left, "
            "from right side to left side, westward, "
            "westwards, to the left hand side, to the left-hand side, to my left, to your left, "
            "from right toward left, r l, r to l"
        ),
        "right": (
            "rightwards, rightward, to right, toward the right, towards the right, to the right side, "
            "left to right, east, from the left to the right, "
            "from the left side to the right side, from left side to the right, "
            "from left side to right side, eastward, "
            "eastwards, to the right hand side, to the right-hand side, to my right, to your right, "
            "from left toward right, l r, l to r"
        ),
        "up": (
            "up, upwards, upward, ascending, ascend, rising, rise, rises up, climbs, climb, climbing, "
            "lifts off, lifting, soars, soar, soaring, ascended, soared, climbed, raising, lifts, "
            "skyward, skywards, levitates, levitate, levitating, takes off, take off, north, northward, "
            "northwards, to the top, into the sky, from below, from the bottom, float upwards"
        ),
        "down": (
            "down, downwards, downward, falls, falling, fall, drops, dropping, drop, sinking, sink, "
            "descend, descending, lands, landing, plummets, plummet, plummeting, plummeted, plunge, "
            "plunging, plunged, dives, dive, diving, dived, lowers, fell, dropped, sank, descended, "
            "landed, tumbled, south, southward, southwards, to the bottom, from above, from the top, "
            "tumbles down, tumbles"
        ),
        "still": (
            "still, stands, stand, standing, rests, rest, resting, hangs, hang, hanging, hovers, hover, "
            "hovering, waits, wait, waiting, stationary, sits, sit, sitting, lies, lying, idle, "
            "in place, unmoving, frozen, at rest, static, immobile, stays where it is, stays put, "
            "remains, parked, without moving, stay still, staying still, standing still, stand still, "
            "floats in place"
        ),
    },
    "event": {
        "bounce": (
            "bounce, bouncing, hop, hopping, hopped, leapt, leaped, jumps, jump, jumping, leaps, leap, "
            "leaping, bounces up, springs, bounced, jumped, jumps up and down, jumping up and down, "
            "bounce up and down, bouncing up and down, hops up and down, hopping up and down"
        ),
        "enter left": "appears from the left, arrives from the left, enters left, from the left, from left",
        "enter right": (
            "appears from the right, arrives from the right, enters right, from the right, from right"
        ),
    },
    "link": {
        "collide": (
            "crashes into, smashes into, runs into, bumps, bump, bump into, crashed into, crashed, "
            "collided with, collided, bumped into, clashes with, collides with, collide with, "
            "crash into, hit, knocks into, strikes, collide, collides, crash, crashes, smash into, "
            "bumping into, crashing into, hitting, colliding with, bumps against, crashes against, "
            "crash with, crashes with"
        ),
    },
    "camera": {
        "zoom in": (
            "dolly in, dollies in, dollying in, push in, pushes in, pushing in, push-in, close in, "
            "closes in, zoomed in, zoom-in, zoom, slow zoom, camera zooms, zoom on, zooms on, "
            "zooming on, zoom into, zooms into, track in, moves closer, comes in closer, "
            "camera approaches, camera gets closer, camera comes closer, camera moves in, "
            "camera moves closer"
        ),
        "zoom out": (
            "dolly out, dollies out, dollying out, dolly back, dollying back, pull back, pulls back, "
            "pulling back, pull out, pulls out, pull-out, pull-back, pulls away, camera backs away, "
            "camera moves back, camera moves away, zoomed out, zoom-out, zoom back, zooms back"
        ),
        "follow": (
            "tracking shot, camera tracks, camera tracking, camera is tracking, follow shot, "
            "following shot, camera following, camera is following, camera follow, camera follows, "
            "follow cam, follow-cam, followed by the camera, camera moves with, camera stays with, "
            "camera stays on, camera tracks along, camera keeps up with, camera goes along"
        ),
        "tilt up": (
            "crane up, cranes up, crane shot up, boom up, booms up, pedestal up, looks up, camera rises"
        ),
        "tilt down": (
            "crane down, cranes down, crane shot down, boom down, booms down, pedestal down, camera sinks"
        ),
    },
    "style": {
        "neon": "neon, neon style, neon lights, neon glow, glowing neon",
        "outline": "outline, in outline, outlined, line drawing, line art, outline drawing, outlines",
    },
    "relation": {
        "behind": (
            "in back of, goes behind, passes behind, pass behind, moves behind, rolls behind, hides behind"
        ),
        "in front of": "passes in front of, passes by, pass in front of",
        "above": (
            "on top of, on top, right above, right on top of, just above, directly above, high above, "
            "higher than, atop"
        ),
        "below": (
            "underneath, beneath, right below, right under, just below, directly below, directly under, "
            "lower than"
        ),
        "left of": (
            "on the left of, on the left side of, at the left of, on left of, left from, "
            "to the left from, left to"
        ),
        "right of": (
            "on the right of, on the right side of, at the right of, on right of, right from, "
            "to the right from"
        ),
        "between": "between, in between",
        "beside": (
            "next to, right next to, right beside, just beside, beside, besides, near, near to, "
            "close to, alongside, adjacent to, by the side of, side by side with"
        ),
    },
    "rests on": {  # where a thing follows at once
        "above": "on, onto, upon, over",
        "in front of": "past",
        "beside": "by",
    },
    "place": {
        "left": (
            "on the far left, far left, left corner, near the left, to the far left, "
            "on the left, on left, at left, at the left, on the left side, "
            "on the left-hand side, "
            "on the left hand side, in the left, left side"
        ),
        "right": (
            "on the far right, far right, right corner, near the right, to the far right, "
            "on the right, on right, at right, at the right, on the right side, "
            "on the right-hand side, "
            "on the right hand side, in the right, right side"
        ),
        "top": "near the top, at the top, on the top, high up, up high, at top, in the upper half, up top, in the sky",
        "bottom": (
            "near the bottom, at the bottom, on the bottom, low down, down low, at bottom, "
            "in the lower half, down below"
        ),
        "top left": (
            "upper left corner, top left, top left corner, in the upper left, in the upper left corner, "
            "in the top left, in the top left corner, at the top left, on the top left"
        ),
        "top right": (
            "upper right, upper right corner, top right, top right corner, in the upper right, "
            "in the upper right corner, in the top right, in the top right corner, at the top right, "
            "on the top right"
        ),
        "bottom left": (
            "lower left, lower left corner, bottom left, bottom left corner, in the lower left, "
            "in the lower left corner, in the bottom left, in the bottom left corner, "
            "at the bottom left, on the bottom left"
        ),
        "bottom right": (
            "lower right, lower right corner, bottom right, bottom right corner, in the lower right, "
            "in the lower right corner, in the bottom right, in the bottom right corner, "
            "at the bottom right, on the bottom right"
        ),
        "front": "in the foreground, in front, at the front, up front",
        "back": "in the background, in the back, at the back, in the distance",
        "middle": (
            "in the middle, in the center, in the centre, halfway up, at the center, at the centre, "
            "in center, centered"
        ),
    },
    "lens": {
        "": (
            "camera, pan, pans, panning, tilt, tilts, tilting, crane, truck, trucks, trucking, dolly, dollies"
        ),
    },
    "unknown": {  # ways to film that this camera does not know
        "": (
            "close-up, close up, closeup, static wide shot, static close-up, extreme close-up, "
            "extreme close up, wide shot, long shot, medium shot, low angle, high angle, wide angle, "
            "dutch angle, bird eye view, birds eye view, top down, top-down, slow motion, slow-motion, "
            "time lapse, fade in, fade out, fade to black, fades to black, black and white, "
            "black-and-white, pointing down, pointing left, pointing right, facing left, facing right, "
            "facing up, facing down, pointing to the left, pointing to the right, facing to the left, "
            "facing to the right, north pole, south pole, ping-pong, right-angled, left-handed, right-handed, pop-up, "
            "back and forth, inside out, upside down"
        ),
    },
    "number": {
        "1": "1x",
        "2": "two, 2, pair, pair of, couple, couple of, twin, twins, 2x, a pair of, a couple of",
        "3": (
            "three, 3, trio, trio of, 3x, several, many, a few, few, lots of, a lot of, plenty of, "
            "a bunch of, a group of, a trio of, multiple, numerous"
        ),
        "4": "four, 4, 4x, quartet of, a quartet of",
        "5": "five, 5, 5x",
        "6": "six, 6, 6x, half a dozen",
        "7": "seven, 7, 7x",
        "8": "eight, 8, 8x",
        "9": "nine, 9, 9x",
        "10": "ten, 10, 10x",
    },
    "not": {
        "": (
            "not, non, no, 0, zero, never, without, anything but, everything but, all but, nor, neither, "
            "except, minus, instead of, rather than, dont, doesnt, isnt, arent, cannot, cant, wont, "
            "didnt, but not, but no, not any, free of"
        ),
    },
    "its side": {
        "left of": "to its left, on its left, at its left, on its left side",
        "right of": "to its right, on its right, at its right, on its right side",
    },
    "follow": {
        "": "follow, follows, following, tracking",
    },
    "halt": {
        "": "stops, stop, stopping, stopped, halts",
    },
    "none": {
        "": "nothing, nobody, none, neither of, none of",
    },
    "function": {
        "": (
            "why not, no wait, wait no, pointing up, pointing upwards, points up, no camera movement, "
            "no camera motion, static shot, static camera, camera static, camera is static, "
            "camera stays still, camera is still, camera still, still camera, fixed camera, fixed shot, "
            "locked camera, locked-off camera, camera does not move, upper left, light falls, "
            "a small paper theatre, no more than, one day, so that, stays there, in the shape of, "
            "by the way, of course, over and over, all over, over there, at once, at the same time, "
            "one by one, each one"
        ),
    },
    "mutual": {
        "": "each other, one another, together with each other, next to each other, side by side",
    },
    "all": {
        "all": "they, all, all of them, them all, everything, everyone, everybody",
        "both": "both, both of them",
    },
    "it": {
        "": "it, him, her, them",
    },
    "other": {
        "": "other, another, other one, another one",
    },
    "ordinal": {
        "1": "first, 1st, former",
        "2": "second, 2nd, latter",
        "3": "third, 3rd",
        "4": "fourth, 4th",
    },
    "one": {
        "": "one, 1",
    },
    "ones": {
        "": "ones",
    },
    "thing": {
        "": "thing, object, something, anything, item, figure, shape, piece",
    },
}
MOTIONS: dict[str, str] = {  # ways to move whose side is open
    "sideways": (
        "rolls, rolling, roll, rolled, slides, sliding, slide, slid, glides, gliding, glide, glided, "
        "sideways, horizontally, crosses, crossed"
    ),
    "vertical": "vertically",
    "aloft": (
        "drifts, drifting, drift, drifted, flies, flying, fly, flew, floats, floating, float, floated, "
        "hovers around"
    ),
    "any": (
        "moves, moving, move, moved, goes, going, go, travels, traveling, travelling, travel, runs, "
        "running, run, comes, come, coming, heads, heading, wanders, wandering, wander, proceeds, "
        "proceed, passes, passing, passed, pass, tumbling, went, came, ran, shifts, strolls, walks, "
        "walking, ambles, trundles, creeps, crawls, sails, cruises, meanders, saunters, travelled"
    ),
    "": "movement, motion, movements",
}

LEAVING = (
    "leaves",
    "leaving",
    "leave",
    "exits",
    "exit",
    "exiting",
    "disappears",
    "vanishes",
    "off",
    "out of",
)
ENTERING = ("enters", "entering", "enter", "comes in", "coming in", "come in", "rolls in", "slides in")
OF_THE_PICTURE = (
    "",
    "view",
    "frame",
    "the frame",
    "screen",
    "the screen",
    "the picture",
    "the scene",
    "stage",
    "the stage",
)


def _shades() -> dict[str, Meaning]:
    """ "dark red" is red; light blue is cyan (ONLY_READ)."""
    modifiers = (
        "reddish",
        "bluish",
        "greenish",
        "yellowish",
        "purplish",
        "pinkish",
        "dark",
        "light",
        "bright",
        "deep",
        "pale",
        "vivid",
        "soft",
        "pastel",
        "shiny",
        "dull",
        "hot",
    )
    return {f"{how} {name}": ("colour", name) for how in modifiers for name in COLOUR_WORDS}


def _goings() -> dict[str, Meaning]:
    """ "leaves the screen on the left"."""
    found: dict[str, Meaning] = {}
    for side in ("left", "right"):
        for what in OF_THE_PICTURE:
            ways = ("", "to", "on", "at", "from", "to the", "on the", "at the", "from the", "by the")
            ends = [" ".join(filter(None, (what, way, side))) for way in ways]
            leaves = [f"{verb} {end}" for verb in LEAVING for end in ends]
            found |= dict.fromkeys(leaves, ("event", f"leave {side}"))
            enters = [f"{verb} {end}" for verb in ENTERING for end in ends]
            found |= dict.fromkeys(enters, ("event", f"enter {side}"))
    return found


READING: dict[str, Meaning] = {
    **_shades(),
    **{word: ("colour", name) for name, words in COLOUR_WORDS.items() for word in words},
    **{word: ("shape", name) for name, words in SHAPE_WORDS.items() for word in words},
    **{word: ("size", name) for name, words in SIZE_WORDS.items() for word in words},
    **{word: ("background", name) for name, words in BACKGROUND_WORDS.items() for word in words},
    **{name: ("background", name) for name in BACKGROUNDS if name not in ("day", "lavender", "snow")},
    **{word: ("direction", name) for name, words in TO_SIDE.items() for word in words},
    **{word: ("direction", name) for name, words in VERTICAL.items() for word in words},
    **{word: ("direction", "still") for words in STILL.values() for word in words},
    **{word: ("material", name) for name, words in MATERIAL_WORDS.items() for word in words},
    "wood": ("material", "wood"), "bouncy": ("material", "rubber"),
    **dict.fromkeys((*BOUNCES, *HOPS), ("event", "bounce")),
    **dict.fromkeys((*LANDS, *FALLS), ("direction", "down")),
    **{word: ("event", f"enter {side}") for side, words in ENTERS.items() for word in words},
    **{word: ("event", f"leave {side}") for side, words in LEAVES.items() for word in words},
    **dict.fromkeys(HITS, ("link", "collide")),
    **{word: ("camera", name) for name, words in CAMERA_WORDS.items() for word in words},
    **{f"{verb} {way}": ("camera", f"zoom {way}") for way in ("in", "out") for verb in ("zooms", "zoom", "zooming")},
    **{word: ("style", name) for name, words in STYLE_WORDS.items() for word in words},
    **{word: ("relation", name) for name, words in RELATION_WORDS.items() for word in words},
    **{word: ("eyes", str(number)) for number, word in EYES.items()},
    **{word: ("count", str(number)) for number, words in NUMBERS.items() for word in words},
    **{f"shot {number}": ("shot", str(number)) for number in range(1, 31)},
    **{
        word: (kind, value)
        for kind, rows in ONLY_READ.items() for value, words in rows.items() for word in words.split(", ")
    },
    **{word: ("motion", name) for name, words in MOTIONS.items() for word in words.split(", ")},
    **_goings(),
    "a": ("article", "a"), "an": ("article", "a"), "some": ("article", "some"), "the": ("article", "the"),
    **dict.fromkeys("my your our his their this these those its".split(), ("article", "the")),
    "and": ("and", ""), "or": ("or", ""), "plus": ("and", ""), "also": ("also", ""), "too": ("also", ""),
    **HELD_OUT_SYNONYMS,
}  # fmt: skip
ALSO_THINGS = frozenset(  # colours that are things
    "orange violet lavender pumpkin carrot cherry lemon lime olive peach plum grape apricot rose mint salmon "
    "coral".split()
)
IRREGULAR = {"dice": "die", "tori": "torus", "boxes": "box"}
NATURAL = {  # colours of the backdrops themselves: "golden dunes"
    "day": "blue yellow", "sunset": "red orange pink purple yellow", "night": "black blue", "desert": "yellow orange",
    "meadow": "green", "ocean": "blue cyan yellow", "lavender": "purple", "snow": "white",
}  # fmt: skip
ELSEWHERE = frozenset(
    "air animation backdrop background clip film floor footage frame gif ground image light lights "
    "movie picture scene screen shadows shot shots sky stage story video".split()
)
LINKING = frozenset(  # words that part an adjective from the noun behind it
    "wear wears wearing wore that is are be being was were has have having which who whose in at with "
    "of from for to into out while as then when where against so he she there here but become becomes "
    "turns gets stays inside through around towards toward across along".split()
)
INSIDE = frozenset(
    "in into inside through around towards toward across along".split()
)  # no relations of the world
FUNCTION_WORDS = LINKING | frozenset(
    "what how why need among amid amidst ish size directly immediate immediately exactly together "
    "head make makes speed calmly smooth smoothly straight steady steadily i me we you want would "
    "like could please see sees seen showing pretty cute nice beautiful cool toy much own itself lets "
    "simple plain paper-cut papercut cutout cinematic same again now wears wearing wore view after "
    "before create generate very bright really just until start starts end ends colour color coloured "
    "colored shaped sized get edge empty only each single paper theatre soft show shows set takes "
    "place objects cut cut-outs layered scenery upper low high side sides front quiet slowly slow "
    "gently clear pale does do did stay staying can may might will should must let us ok okay maybe "
    "perhaps basically actually imagine think thinking thought happen happens happening open opening "
    "away forward lone lonely quite rather such if direction position style prompt type made scenes "
    "next finally later afterwards meanwhile once more most been had about off back teh hte adn nad "
    "wiht thier than any every whole well always often sometimes sequence called named looks looking "
    "appear appears appearing visible everywhere somewhere ground-level nicely softly lazily "
    "gracefully quietly gradually slightly simply different identical similar certain hey hi oh o ext "
    "int title subject action setting describe description output resolution quality thanks thank "
    "time look keep keeps keeping ever getting wants says shall "
    "said others forwards started begin begins began either least definitely maybe please whichever love put".split()
)
NO_TYPOS = frozenset(  # common words that a slip would turn into words of the world
    "abode agent angel angular appealing appeals ardent arena arising arrive babble back beady beard "
    "beds bedside beech began belch bell bench bids bits blacking blank bleach blow booth botch "
    "bouncer bouncers bounded bounding bounty bowing breach bread bring brink brisk broth brunt brush "
    "bumble bums burn bush camel cameo can cane canes cannon capable capture carbon carrots carte "
    "cartoon cartoons cash cashed cashes cashing cast chant cheery choral clash clashed climber coat "
    "coats codes cold colonial comas combing combs comer comet comets cone cones cooing cores corral "
    "cost coupe coupled cram crank crass crater crave craze creak creams crush crushed crushes cues "
    "curse curtain dawn daylights delight described diced died dilly dimes dined dines dingy dining "
    "dink dint disappear disco diver divers divine doll dolls don dose doves downy doze draft drafted "
    "drafting drafts draw drifter dripped dripping drips drive drives driving droppings drown dudes "
    "dues dukes dunce earning eats eclipse eclipsed eclipses emerged evading exist failing fails fame "
    "farmer fastball fella felling fellow fellows fiend fiends figured filed filling fills firmer "
    "fist flat flees flier fliers fling flips floater flour flout font foosball footballer forger "
    "form formed fort fries froth frying giants gilded glass glassy glider gliders glove gong grabs "
    "grace grade grams grant grapes graph grasp grate gratefully grave graze greed greek greet gripe "
    "grope gross guide guided guides guiding gutting hacking hags halls halt halting handing hands "
    "happenings hates hauling hawking heady healing heals heaps hearing hears heating heats heaving "
    "helping herding herds hide hill hinting hints holding homer honking hooking hoped hopes hoping "
    "hopper hovel huffing hugging humming humorous humping hunting hurling hurting immerse immersed "
    "incense intense jaded jumper knock lads lager land lander lanes laps largely late lather latte "
    "lattes launder laying leading leads leaked leaking leaks leaned leaning leans leased leasing "
    "least lefty lemons lending lends lest letter lien lift likes lila limey lines listing lists "
    "litter lives lock locking lone longest looming looping looting losers lost magnets mammoths "
    "mangy manly massage massing meddling menus microscope midlife midway midwife mild milling "
    "minding minds mines mingling mints minty missile modeling modes moles monolith mooing moped "
    "moping mountain mover movers movies mowed mowing multiply mustang mustered name nears nether "
    "newer nightlife nothings noting olives oranges otter outlive outlived overt pace packaged packed "
    "pain pains pairs pal pallet pangs pansy panting pants parted passage pasta paste pasted pastime "
    "pasty pats paused pauses pausing pawning pawns peace peak peas perch petty pictured pierce pin "
    "pinky pinning pints pissed plan planning plans plugged plugging plugs plumb plume plump plums "
    "plunger plush poach point posses posture power preach publish pumping pumpkins puree qualify "
    "quit quite raiding railing raining raise raises raisin raisins rally reed regains remain renting "
    "reset resolutions retains revolution rides riding rig rigs rinse risking risks rites robber "
    "roles roller roses rosie rouse roust rubbed rubbers rugby ruining ruins runes rusting sage salon "
    "saloon sash saying scared scarier scariest scaring scarred scars scarves scoping score scoring "
    "scrolls seared searing seasick seating seconds seed settling sever shade shadow shadowy shafts "
    "shake shale shame shank share shared sharing shave shift shifty shin shirts shoe shone shoot "
    "shoots shopped shopping shops short shove shoving shutdown sifting silks singing sings sinning "
    "sinus sitar sites skill skylight slaying slice slices slicing slime slink slits slitting sloping "
    "slowing smarter smartest smell smelled smoking snaking snide sniping snooping snore snoring "
    "snorting snowball snowballs soaked soaking soaks soaps solar solid sonar sonny sora sore sow "
    "sowing spank spared sparing sped spewing spill spits spitting spring squire stables stag staging "
    "stair staking stalker stall stalled stank stanley stapled stapler staples stare stared staring "
    "stark starling starred started starter startle startled starved starves stating stationery stead "
    "stepped stepping steps steroid stewing stink stinking stinks stomp stomped stomping stoop "
    "stooped stopper store storing strand strands straying strides strike striker strikers strings "
    "stripes strives strokes stroll subside suits sway swaying swill swore table tables tack tacks "
    "taillight tale tank tanks teen teens thanking thin thingy thinning thirds thorough though "
    "thoughts threw tile tins tours tracing tree trees trick tricking tricks trough truce trunk "
    "trunks tuck tucking tucks tumbler turn twigs twine tying violent visibly wages wailing wails "
    "waist waive waiving wakes waking walk wanting wares wars warts wasting watts waved waver wear "
    "weave weaves weaving wets whine whitest whitey winery winner wits wives wonder wondering wonders "
    "wooded woods wooed woolen wrest write writing yours zoos".split()
)
